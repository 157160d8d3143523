//! Tasks of one target beside each other.

use super::*;
use crate::server::cdc::overlap::{self, Name, Taken};
use crate::server::cdc::response::Refusal;

fn name(text: &str) -> Name {
    Name::try_from(text.to_owned()).unwrap()
}

/// A task that takes `names` without `excluded`.
fn taken(names: &[&str], excluded: &[&str]) -> Taken {
    let all = |names: &[&str]| names.iter().map(|text| name(text)).collect();
    Taken { names: all(names), excluded: all(excluded), user_roles: false }
}

/// A request for `names`, as `db_collections`.
fn request(names: &[&str]) -> Create {
    let mut databases = json!({});
    for wanted in names.iter().map(|text| name(text)) {
        let list = &mut databases[&wanted.database];
        if list.is_null() {
            *list = json!([]);
        }
        list.as_array_mut().unwrap().push(json!({ "name": wanted.collection }));
    }
    create(with_target(json!({ "db_collections": databases })))
}

fn exclusions(wanted: &[&str], others: &[Taken]) -> Result<Vec<String>, Refusal> {
    overlap::exclusions(&request(wanted), others).map(|names| names.iter().map(Name::to_string).collect())
}

fn duplicate(names: &str) -> Result<Vec<String>, Refusal> {
    Err(Refusal::client(format!("the collection name is duplicate with existing task, [{names}]")))
}

#[test]
fn what_another_task_takes_is_a_duplicate() {
    for (wanted, other) in [
        ("default.a", "default.a"),
        ("default.a", "default.*"),
        ("default.a", "*.*"),
        ("default.a", "*.a"),
        ("default.*", "default.*"),
        ("default.*", "*.*"),
        ("*.*", "*.*"),
    ] {
        assert_eq!(
            exclusions(&[wanted], &[taken(&[other], &[])]),
            duplicate(wanted),
            "{wanted} under {other}"
        );
    }
    assert_eq!(
        exclusions(&["default.a", "default.b", "default.c"], &[taken(&["default.c", "default.a"], &[])]),
        duplicate("default.a default.c")
    );
}

#[test]
fn a_later_star_leaves_out_what_is_taken() {
    let none: [String; 0] = [];
    for (wanted, other, excluded) in [
        ("default.*", "default.a", vec!["default.a"]),
        ("*.*", "default.a", vec!["default.a"]),
        ("*.*", "default.*", vec!["default.*"]),
        ("*.a", "default.*", vec!["default.*"]),
        ("default.*", "*.a", vec!["*.a"]),
        ("default.*", "shop.a", vec![]),
        ("default.b", "default.a", vec![]),
    ] {
        let found = exclusions(&[wanted], &[taken(&[other], &[])]).unwrap();
        assert_eq!(found, excluded, "{wanted} beside {other}");
    }
    assert_eq!(exclusions(&["*.*"], &[]).unwrap(), none);
    assert_eq!(
        exclusions(&["*.*"], &[taken(&["default.b"], &[]), taken(&["default.a", "default.b"], &[])]).unwrap(),
        ["default.a", "default.b"]
    );
}

#[test]
fn what_a_star_left_out_may_be_taken_again() {
    // `default.a` had a task of its own before `default.*`; that task is gone.
    let star = taken(&["default.*"], &["default.a"]);
    assert_eq!(exclusions(&["default.a"], std::slice::from_ref(&star)), Ok(vec![]));
    assert_eq!(exclusions(&["default.b"], &[star]), duplicate("default.b"));
    let all = taken(&["*.*"], &["default.*"]);
    assert_eq!(exclusions(&["default.*"], &[all]), Ok(vec![]));
}

#[test]
fn a_task_never_leaves_out_what_it_names() {
    let star = taken(&["default.*"], &["default.a"]);
    assert_eq!(exclusions(&["default.a", "*.x"], &[star]), duplicate("default.a"));
}

#[test]
fn one_task_of_a_target_copies_users_and_roles() {
    let with_roles = |names: &[&str]| Taken { user_roles: true, ..taken(names, &[]) };
    let mut wanted = request(&["default.a"]);
    wanted.enable_user_role = true;
    assert_eq!(overlap::exclusions(&wanted, &[taken(&["default.b"], &[])]), Ok(vec![]));
    assert_eq!(
        overlap::exclusions(&wanted, &[with_roles(&["default.b"])]),
        Err(Refusal::client("the enable user role param is duplicate"))
    );
}

#[test]
fn a_mapping_is_about_what_the_task_takes() {
    let refused = Err(Refusal::client(
        "the collection name in the name mapping is not in the collection info, checkout it",
    ));
    let mapped = |wanted: &[&str], mapping: Value| {
        let mut request = request(wanted);
        request.name_mapping = create(json!({ "name_mapping": [mapping] })).name_mapping;
        overlap::exclusions(&request, &[])
    };
    let whole = json!({ "source_db": "foo", "target_db": "bar" });
    let single = json!({ "source_db": "foo", "target_db": "bar", "collection_mapping": { "a": "b" } });
    assert_eq!(mapped(&["foo.*"], whole.clone()), Ok(vec![]));
    assert_eq!(mapped(&["*.*"], whole.clone()), Ok(vec![]));
    assert_eq!(mapped(&["foo.a"], whole.clone()), refused);
    assert_eq!(mapped(&["default.*"], whole), refused);
    assert_eq!(mapped(&["foo.a"], single.clone()), Ok(vec![]));
    assert_eq!(mapped(&["foo.*"], single.clone()), Ok(vec![]));
    assert_eq!(mapped(&["foo.b"], single), refused);
}
