//! Which collections a pipeline takes: patterns `database.collection` with `*` and `?`.

use super::Select;
use crate::milvus::catalog::CollectionName;

impl Select {
    /// Whether the pipeline takes this collection: some pattern of `collections` matches and none of `exclude`.
    /// Names differ by case. Both parts of a pattern must match in full; a wildcard never reaches over the dot.
    pub fn matches(&self, name: &CollectionName) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, name));
        any(&self.collections) && !any(&self.exclude)
    }

    /// What is wrong with a pattern, as the rest of a sentence, and what to write instead.
    pub fn objection(pattern: &str) -> Option<(String, String)> {
        objection(pattern)
    }
}

fn matches(pattern: &str, name: &CollectionName) -> bool {
    pattern.split_once('.').is_some_and(|(database, collection)| {
        wildcard(database, &name.database) && wildcard(collection, &name.collection)
    })
}

/// Whether all of `text` matches `pattern`, where `*` is any run of characters and `?` any single one.
fn wildcard(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.chars(), text.chars());
    // After the last `*`: the pattern that follows it, and the text that it has not swallowed yet.
    let mut last_star = None;
    loop {
        let mut ahead = (pattern.clone(), text.clone());
        match (ahead.0.next(), ahead.1.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                pattern = ahead.0;
                last_star = Some((pattern.clone(), text.clone()));
            }
            (Some(wanted), Some(found)) if wanted == '?' || wanted == found => (pattern, text) = ahead,
            _ => {
                // Let the last star swallow one character more.
                let Some((after, swallowed)) = &mut last_star else { return false };
                if swallowed.next().is_none() {
                    return false;
                }
                (pattern, text) = (after.clone(), swallowed.clone());
            }
        }
    }
}

/// What is wrong with a pattern, and what to write instead.
pub(super) fn objection(pattern: &str) -> Option<(String, String)> {
    let strange =
        |found: char| found.is_whitespace() || found.is_control() || "[]{}()!/\\,;'\"".contains(found);
    let parts: Vec<&str> = pattern.split('.').collect();
    let objection = match parts.as_slice() {
        ["*"] => {
            ("has no database".to_owned(), "write \"*.*\" for all collections of all databases".to_owned())
        }
        [name] => (
            "has no database".to_owned(),
            format!("write \"default.{name}\" if it is in the default database"),
        ),
        [database, collection] if database.is_empty() || collection.is_empty() => (
            "lacks a name before or after the dot".to_owned(),
            "write database.collection; * stands for any name".to_owned(),
        ),
        [_, _] => {
            let found = pattern.chars().find(|found| strange(*found))?;
            (
                format!("holds {found:?}, which no name of a collection has"),
                "write database.collection; the only wildcards are * and ?".to_owned(),
            )
        }
        _ => (
            "has more than one dot".to_owned(),
            "write database.collection; names of Milvus have no dots".to_owned(),
        ),
    };
    Some(objection)
}

/// Whether `pattern` can match collections of `database`.
pub(super) fn takes_from(pattern: &str, database: &str) -> bool {
    pattern.split_once('.').is_some_and(|(databases, _)| wildcard(databases, database))
}

/// Whether `exclude` takes away everything that `pattern` could match. (It may say no where the answer is yes.)
pub(super) fn covers(exclude: &str, pattern: &str) -> bool {
    if exclude == pattern {
        return true;
    }
    // A star matches a star, and whatever that one stands for. A question mark can't be taken as covering anything.
    !exclude.contains('?')
        && match (exclude.split_once('.'), pattern.split_once('.')) {
            (Some(exclude), Some(pattern)) => {
                wildcard(exclude.0, pattern.0) && wildcard(exclude.1, pattern.1)
            }
            _ => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn selected(collections: &[&str], exclude: &[&str], name: &str) -> bool {
        let (database, collection) = name.split_once('.').unwrap();
        let owned = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        Select { collections: owned(collections), exclude: owned(exclude) }
            .matches(&CollectionName { database: database.to_owned(), collection: collection.to_owned() })
    }

    #[test]
    fn a_plain_pattern_takes_one_collection() {
        assert!(selected(&["default.orders"], &[], "default.orders"));
        assert!(!selected(&["default.orders"], &[], "default.orders2"));
        assert!(!selected(&["default.orders"], &[], "shop.orders"));
    }

    #[test]
    fn names_differ_by_case() {
        assert!(!selected(&["default.Orders"], &[], "default.orders"));
    }

    #[test]
    fn a_star_is_any_run_of_characters_within_its_part() {
        assert!(selected(&["*.*"], &[], "default.orders"));
        assert!(selected(&["default.*"], &[], "default.orders"));
        assert!(!selected(&["default.*"], &[], "shop.orders"));
        assert!(selected(&["*.orders_*"], &[], "shop.orders_"));
        assert!(selected(&["*.*_tmp_*x"], &[], "shop.a_tmp_tmp_yxx"));
        assert!(!selected(&["*.*_tmp_*x"], &[], "shop.a_tmp_y"));
    }

    #[test]
    fn a_question_mark_is_exactly_one_character() {
        assert!(selected(&["default.shard_?"], &[], "default.shard_1"));
        assert!(selected(&["default.shard_?"], &[], "default.shard_é"));
        assert!(!selected(&["default.shard_?"], &[], "default.shard_"));
        assert!(!selected(&["default.shard_?"], &[], "default.shard_12"));
    }

    #[test]
    fn exclude_wins() {
        assert!(!selected(&["*.*", "default.orders"], &["default.orders"], "default.orders"));
        assert!(selected(&["*.*"], &["default.tmp_*"], "shop.tmp_1"));
        assert!(!selected(&["*.*"], &["default.tmp_*"], "default.tmp_1"));
    }

    #[test]
    fn patterns_that_are_none_are_answered_with_one_that_is() {
        let hint = |pattern| objection(pattern).unwrap().1;
        assert_eq!(hint("orders"), "write \"default.orders\" if it is in the default database");
        assert_eq!(hint("*"), "write \"*.*\" for all collections of all databases");
        for pattern in ["", ".", "a.", ".b", "a.b.c", "a b.c", "a.[bc]", "!a.b", "a.b/c"] {
            assert!(objection(pattern).is_some(), "{pattern}");
        }
        for pattern in ["a.b", "*.*", "a?.b_$-é"] {
            assert_eq!(objection(pattern), None, "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn wildcards_agree_with_globset(pattern in "[ab*?]{0,8}", text in "[ab]{0,10}") {
            let glob = globset::Glob::new(&pattern).unwrap().compile_matcher();
            prop_assert_eq!(wildcard(&pattern, &text), glob.is_match(&text));
        }

        #[test]
        fn what_is_covered_never_matches_alone(
            exclude in "[ab*?]{1,4}\\.[ab*?]{1,4}",
            pattern in "[ab*?]{1,4}\\.[ab*?]{1,4}",
            name in "[ab]{1,6}\\.[ab]{1,6}",
        ) {
            if covers(&exclude, &pattern) {
                prop_assert!(!selected(&[&pattern], &[&exclude], &name));
            }
        }
    }
}
