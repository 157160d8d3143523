//! Whole files, right and wrong.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::time::Duration;

use crate::milvus::tso::Tso;
use crate::pipeline::StartAt;

use super::keys::{Default, KEYS, Key, Shape, TABLES};
use super::*;

const MINIMAL: &str = r#"name = "orders"

[source]
etcd = ["http://127.0.0.1:2379"]

[source.mq]
type = "rocksmq"
path = "/mq"

[select]
collections = ["default.*"]

[target]
type = "milvus"
uri = "http://127.0.0.1:19530"
"#;

fn environment(name: &str) -> Option<OsString> {
    match name {
        "HOME" => Some("/home/me".into()),
        "ETCD_PASSWORD" | "KAFKA_PASSWORD" | "PULSAR_TOKEN" | "SOURCE_TOKEN" | "TARGET_TOKEN" => {
            Some("hidden".into())
        }
        "CALLS" => Some("7".into()),
        "ADOPT" => Some("true".into()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Pipeline> {
    Pipeline::parse(text, Path::new("/etc/migrans/p.toml"), &environment)
}

/// What is wrong with the minimal file after `from` became `to`.
fn wrong(from: &str, to: &str) -> String {
    assert!(MINIMAL.contains(from), "{from}");
    let error = parse(&MINIMAL.replace(from, to)).unwrap_err();
    assert_eq!(error.kind(), Kind::PipelineFile);
    error.report().replace("/etc/migrans/p.toml", "p.toml")
}

#[test]
fn a_minimal_file_gets_all_defaults() {
    let pipeline = parse(MINIMAL).unwrap();
    assert_eq!(pipeline.name, "orders");
    assert_eq!(pipeline.state_dir, Path::new("/home/me/.local/state/migrans/orders"));
    assert_eq!(pipeline.source.etcd, ["http://127.0.0.1:2379"]);
    assert_eq!(pipeline.source.root_path, "by-dev");
    assert_eq!(pipeline.source.meta_path, "meta");
    assert!(pipeline.source.etcd_tls.is_none() && pipeline.source.etcd_username.is_none());
    let MqConfig::Rocksmq(rocksmq) = &pipeline.source.mq else { panic!() };
    assert_eq!(rocksmq.path, Path::new("/mq"));
    assert_eq!(pipeline.select.exclude, Vec::<String>::new());
    let TargetConfig::Milvus(target) = &pipeline.target else { panic!("{:?}", pipeline.target) };
    assert!(!target.adopt && target.token.is_none() && target.tls.is_none());
    assert_eq!(target.connect_timeout, Duration::from_secs(10));
    let delivery = &pipeline.delivery;
    assert_eq!((delivery.memory, delivery.batch, delivery.max_calls), (256 << 20, 8 << 20, 4));
    assert_eq!(delivery.max_lag, Duration::from_millis(200));
    assert_eq!(delivery.call_deadline, Duration::from_secs(10));
    assert_eq!(delivery.checkpoint_interval, Duration::from_millis(500));
}

#[test]
fn the_proxy_of_the_source_may_be_named_in_part() {
    let with = |table: &str| parse(&MINIMAL.replace("[source.mq]", &format!("{table}\n[source.mq]")));
    let milvus = with("").unwrap().source.milvus;
    assert!(milvus.uri.is_none() && milvus.token.is_none() && milvus.tls.is_none());
    let milvus = with("[source.milvus]\ntoken = \"${SOURCE_TOKEN}\"").unwrap().source.milvus;
    assert!(milvus.uri.is_none() && milvus.token.is_some());
    let milvus = with("[source.milvus]\nuri = \"http://s:19530\"").unwrap().source.milvus;
    assert_eq!(milvus.uri.as_deref(), Some("http://s:19530"));
    assert!(with("[source.milvus]\nuri = \"s\"").is_err());
}

#[test]
fn every_key_can_be_written_as_in_its_example() {
    let file = |queue: &str| {
        let mut text = String::new();
        let fits = |variants: &[&str], table: &str| {
            !table.starts_with("source.mq") || variants.is_empty() || variants.contains(&queue)
        };
        for table in TABLES.iter().filter(|table| fits(table.variants, table.path)) {
            if !table.path.is_empty() {
                text.push_str(&format!("[{}]\n", table.path));
            }
            let keys = KEYS.iter().filter(|key| key.table == table.path && fits(key.variants, key.table));
            for key in keys {
                if (queue, key.table, key.name) == ("kafka", "source.mq.tls", "server_name") {
                    continue;
                }
                let type_of_queue = key.table == "source.mq" && key.name == "type";
                let example = if type_of_queue { format!("\"{queue}\"") } else { key.example.to_owned() };
                text.push_str(&format!("{} = {example}\n", key.name));
            }
        }
        // TLS goes with https alone, and RocksMQ has none.
        let text = text.replace("http://", "https://").replace("pulsar://", "pulsar+ssl://");
        if queue == "rocksmq" {
            return text;
        }
        text.replace("[source.mq.options]", "[source.mq.options]\n\"client.id\" = \"${TARGET_TOKEN}\"")
    };
    let kafka = parse(&file("kafka")).unwrap();
    let MqConfig::Kafka(kafka) = kafka.source.mq else { panic!("{kafka:?}") };
    assert_eq!(kafka.brokers, ["kafka-1:9092", "kafka-2:9092"]);
    assert_eq!((kafka.security, kafka.sasl_mechanism), ("sasl_ssl", "SCRAM-SHA-512"));
    assert_eq!(kafka.password, Some(Secret("hidden".to_owned())));
    assert_eq!(kafka.options["client.id"], "hidden");
    assert!(kafka.tls.is_some());
    let pulsar = parse(&file("pulsar")).unwrap();
    assert_eq!(pulsar.source.start, StartAt::After(Tso::parse("2026-11-22T10:00:00Z").unwrap()));
    let MqConfig::Pulsar(pulsar) = pulsar.source.mq else { panic!("{pulsar:?}") };
    assert_eq!(pulsar.uri, "pulsar+ssl://127.0.0.1:6650");
    assert_eq!((pulsar.tenant.as_str(), pulsar.namespace.as_str()), ("milvus", "production"));
    assert_eq!(pulsar.subscription.as_deref(), Some("migrans-orders-standby"));
    let pipeline = parse(&file("rocksmq")).unwrap();
    assert_eq!(pipeline.state_dir, Path::new("/var/lib/migrans/orders-standby"));
    assert_eq!(pipeline.source.etcd_password, Some(Secret("hidden".to_owned())));
    let etcd_tls = pipeline.source.etcd_tls.unwrap();
    assert_eq!(etcd_tls.ca.as_deref(), Some(Path::new("/etc/migrans/ca.pem")));
    let TargetConfig::Milvus(target) = pipeline.target else { panic!() };
    assert_eq!(target.token, Some(Secret("hidden".to_owned())));
    assert!(target.adopt);
    assert_eq!(target.tls.unwrap().server_name.as_deref(), Some("milvus.example"));
    assert_eq!(pipeline.select.exclude, ["shop.tmp_*"]);
    assert_eq!(pipeline.delivery.memory, 1 << 30);
    assert_eq!(pipeline.delivery.max_calls, 8);
    assert_eq!(pipeline.delivery.checkpoint_interval, Duration::from_secs(2));
    let ownership = pipeline.ownership.unwrap();
    assert_eq!((ownership.etcd.len(), ownership.prefix.as_str()), (3, "/teams/search/migrans/"));
    assert_eq!((ownership.ttl, ownership.settle), (Duration::from_secs(10), Duration::from_secs(10)));
    assert_eq!(ownership.etcd_password, Some(Secret("hidden".to_owned())));
}

#[test]
fn an_ownership_is_as_short_as_it_is_written_and_in_whole_seconds() {
    assert!(parse(MINIMAL).unwrap().ownership.is_none());
    let with = |keys: &str| parse(&format!("{}\n[ownership]\n{keys}\n", MINIMAL));
    let ownership = with("etcd = [\"http://o:1\"]").unwrap().ownership.unwrap();
    assert_eq!((ownership.ttl, ownership.settle), (Duration::from_secs(3), Duration::from_secs(4)));
    assert_eq!(ownership.prefix, "/migrans/");
    for (keys, message) in [
        ("", "missing key \"etcd\" in [ownership]"),
        ("etcd = [\"http://o:1\"]\nttl = \"2500ms\"", "is not in whole seconds"),
        ("etcd = [\"http://o:1\"]\nttl = \"1s\"", "ttl"),
        ("etcd = [\"http://o:1\"]\netcd_username = \"u\"", "is set without \"etcd_password\""),
        (
            "etcd = [\"http://o:1\"]\n[ownership.etcd_tls]\nca = \"ca.pem\"",
            "but an address begins with http://",
        ),
    ] {
        let error = with(keys).unwrap_err();
        assert!(error.report().contains(message), "{keys}: {}", error.report());
    }
}

#[test]
fn every_key_refuses_another_type_and_names_its_own() {
    for key in KEYS {
        let variant = key.variants.first().copied().or(match key.table {
            "source.mq" => Some("rocksmq"),
            "target" => Some("milvus"),
            _ => None,
        });
        let mut text = String::new();
        match key.table {
            "" => {}
            table => text.push_str(&format!("[{table}]\n")),
        }
        text.push_str(&format!("{} = 1979-05-27\n", key.name));
        match (key.table, variant) {
            ("source.mq.tls", _) => text.push_str("[source.mq]\ntype = \"kafka\"\n"),
            ("target.tls", _) => text.push_str("[target]\ntype = \"milvus\"\n"),
            (_, Some(variant)) if key.name != "type" => text.push_str(&format!("type = \"{variant}\"\n")),
            _ => {}
        }
        let report = parse(&text).unwrap_err().report();
        let hint = format!(", not a datetime\n  hint: for example: {} = {}", key.name, key.example);
        assert!(report.contains(&format!("\"{}\"", key.name)) && report.contains(&hint), "{report}");
    }
}

#[test]
fn every_problem_is_told_in_one_go_with_its_place() {
    let text = r#"nam = "orders"
[source]
etcd = ["127.0.0.1:2379", "http://ok:1", 5]
root_path = ""
etcd_username = "${NOBODY}"
[source.mq]
type = "rocksmq"
paths = "/mq"
[selects]
collections = []
[target]
type = "milvus"
uri = "http://u:p@t:1"
adopt = "yes"
[delivery]
memmory = "1GiB"
batch = "64MiB"
max_calls = 0
max_lag = 200
call_deadline = "10"
"#;
    let report = parse(text).unwrap_err().report().replace("/etc/migrans/p.toml", "p.toml");
    let problems: Vec<&str> = report.lines().filter(|line| line.starts_with("p.toml")).collect();
    assert_eq!(
        problems,
        [
            "p.toml:1:1: unknown key \"nam\" at the top level",
            "p.toml:3:9: \"etcd\" in [source]: does not begin with http:// or https://",
            "p.toml:3:42: \"etcd\" in [source] must be a list of addresses, not a list with an integer",
            "p.toml:4:13: \"root_path\" in [source] is empty",
            "p.toml:5:17: \"etcd_username\" in [source] is set without \"etcd_password\"",
            "p.toml:5:18: environment variable NOBODY is not set",
            "p.toml:6:1: missing key \"path\" in [source.mq]",
            "p.toml:8:1: unknown key \"paths\" in [source.mq]",
            "p.toml:9:2: unknown table [selects]",
            "p.toml:13:7: \"uri\" in [target] holds credentials",
            "p.toml:14:9: \"adopt\" in [target] must be true or false, not a string",
            "p.toml:16:1: unknown key \"memmory\" in [delivery]",
            "p.toml:17:9: \"batch\" in [delivery] can't be 64MiB",
            "p.toml:18:13: \"max_calls\" in [delivery] can't be 0",
            "p.toml:19:11: \"max_lag\" in [delivery] must be a duration (a text with a unit), not an integer",
            "p.toml:20:17: \"call_deadline\" in [delivery] can't be \"10\"",
            "p.toml: missing key \"name\" at the top level",
            "p.toml: missing table [select]",
        ],
        "{report}"
    );
    for hint in [
        "did you mean \"name\"?",
        "did you mean \"select\"?",
        "did you mean \"memory\"?",
        "did you mean \"path\"?",
        "choose from 64KiB to 48MiB",
        "choose from 1 to 256",
    ] {
        assert!(report.contains(&format!("\n  hint: {hint}")), "{hint} in {report}");
    }
    assert!(!report.contains("u:p"), "{report}");
}

#[test]
fn a_key_in_the_wrong_place_is_told_the_right_one() {
    assert_eq!(
        wrong("uri =", "max_calls = 3\nuri ="),
        "p.toml:15:1: unknown key \"max_calls\" in [target]\n  hint: it belongs in [delivery]"
    );
    assert_eq!(
        wrong("type = \"milvus\"", "type = \"null\""),
        "p.toml:15:1: unknown key \"uri\" in [target]\n  hint: it goes with type = \"milvus\""
    );
    assert_eq!(
        wrong("uri =", "zzz = 3\nuri ="),
        "p.toml:15:1: unknown key \"zzz\" in [target]\n  hint: known here: type, uri, token, mode, adopt, connect_timeout, tls, names"
    );
}

#[test]
fn an_unknown_type_is_told_the_known_ones_and_its_keys_are_not_judged() {
    assert_eq!(
        wrong("type = \"rocksmq\"\npath = \"/mq\"", "type = \"woodpecker\"\nbrokers = []"),
        "p.toml:7:8: \"type\" in [source.mq] can't be \"woodpecker\"\n  hint: it is \"rocksmq\", \"kafka\" or \"pulsar\""
    );
    assert_eq!(
        wrong("type = \"milvus\"\n", "type = \"Milvus\"\n"),
        "p.toml:14:8: \"type\" in [target] can't be \"Milvus\"\n  hint: it is \"milvus\" or \"null\""
    );
    let report = wrong("type = \"milvus\"\n", "urii = 1\n");
    assert!(report.contains("missing key \"type\" in [target]"), "{report}");
    assert!(report.contains("unknown key \"urii\" in [target]"), "{report}");
}

#[test]
fn a_syntax_error_has_its_place() {
    let report = wrong("name = \"orders\"", "name = \"orders");
    assert!(report.starts_with("p.toml:1:"), "{report}");
    assert_eq!(report.lines().count(), 1, "{report}");
    let report = wrong("[select]", "[source]");
    assert!(report.starts_with("p.toml:10:2: duplicate key"), "{report}");
}

#[test]
fn an_empty_file_is_told_what_it_lacks() {
    let report = parse("").unwrap_err().report();
    for what in ["key \"name\"", "table [source]", "table [select]", "table [target]"] {
        assert!(report.contains(&format!("missing {what}")), "{what} in {report}");
    }
    assert!(!report.contains("state_dir") && !report.contains("[source.mq]"), "{report}");
}

#[test]
fn numbers_and_flags_can_come_from_the_environment() {
    let text = MINIMAL.replace("uri =", "adopt = \"${ADOPT}\"\nuri =");
    let pipeline = parse(&format!("{text}[delivery]\nmax_calls = \"${{CALLS}}\"\n")).unwrap();
    assert_eq!(pipeline.delivery.max_calls, 7);
    assert!(matches!(pipeline.target, TargetConfig::Milvus(MilvusTarget { adopt: true, .. })));
    let report = wrong("uri =", "adopt = \"${CALLS}\"\nuri =");
    assert!(report.contains("\"adopt\" in [target] is \"7\""), "{report}");
}

#[test]
fn numbers_can_be_written_in_every_way_of_toml() {
    for (number, calls) in [("0x10", 16), ("1_0", 10), ("+8", 8)] {
        let pipeline = parse(&format!("{MINIMAL}[delivery]\nmax_calls = {number}\n")).unwrap();
        assert_eq!(pipeline.delivery.max_calls, calls);
    }
    for number in ["-1", "257", "99999999999999999999999"] {
        assert!(parse(&format!("{MINIMAL}[delivery]\nmax_calls = {number}\n")).is_err(), "{number}");
    }
}

#[test]
fn an_unset_variable_is_found_in_the_file_also_behind_escapes() {
    assert_eq!(
        wrong("\"/mq\"", "\"\\u00e9\\t${HERE}\""),
        "p.toml:8:17: environment variable HERE is not set\n  hint: set it, or give a default: ${HERE:-value}"
    );
    assert!(wrong("\"/mq\"", "\"\\u0024{HERE}\"").starts_with("p.toml:8:8: "));
}

#[test]
fn settings_that_contradict_each_other_are_told() {
    for (from, to, message) in [
        (
            "[source]\n",
            "[source]\netcd_password = \"x\"\n",
            "p.toml:4:17: \"etcd_password\" in [source] is set without \"etcd_username\"",
        ),
        (
            "[source.mq]",
            "[source.etcd_tls]\n[source.mq]",
            "p.toml:6:1: [source.etcd_tls] is set, but an address begins with http://",
        ),
        ("uri =", "tls = { key = \"k\" }\nuri =", "\"key\" in [target.tls] is set without \"cert\""),
        (
            "[target]",
            "exclude = [\"default.*\"]\n[target]",
            "p.toml:13:11: \"exclude\" in [select] leaves out everything that \"collections\" takes",
        ),
        (
            "[target]",
            "[delivery]\nmemory = \"64MiB\"\nbatch = \"40MiB\"\n[target]",
            "p.toml:14:10: \"memory\" in [delivery] is less than twice \"batch\"",
        ),
        (
            "[\"default.*\"]",
            "[\"orders\"]",
            "p.toml:11:16: \"collections\" in [select]: \"orders\" has no database\n  hint: write \"default.orders\"",
        ),
        ("[\"default.*\"]", "[]", "p.toml:11:15: \"collections\" in [select] is empty"),
        (
            "\"/mq\"",
            "\"~/mq\"",
            "p.toml:8:8: \"path\" in [source.mq] begins with ~, which only a shell understands\n  hint: write \"${HOME}/mq\"",
        ),
        ("name = \"orders\"", "name = \"a/b\"", "p.toml:1:8: \"name\" can't be \"a/b\""),
        (
            "[source.mq]\ntype = \"rocksmq\"\npath = \"/mq\"",
            "mq = \"rocksmq\"",
            "p.toml:6:6: [source.mq] must be a table, not a string",
        ),
    ] {
        let report = wrong(from, to);
        assert!(report.contains(message), "{message}\nin {report}");
    }
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let text = MINIMAL.replace("\"/mq\"", "\"mq\"").replace("name =", "state_dir = \"../state\"\nname =");
    let pipeline = parse(&text).unwrap();
    assert_eq!(pipeline.state_dir, Path::new("/etc/migrans/../state"));
    let MqConfig::Rocksmq(rocksmq) = &pipeline.source.mq else { panic!() };
    assert_eq!(rocksmq.path, Path::new("/etc/migrans/mq"));
    let pipeline = Pipeline::parse(&text, Path::new("p.toml"), &environment).unwrap();
    assert_eq!(pipeline.state_dir, Path::new("../state"));
}

#[test]
fn the_state_folder_follows_the_xdg_specification() {
    let state_dir = |xdg: Option<&str>, home: Option<&str>| {
        let lookup = |name: &str| match name {
            "XDG_STATE_HOME" => xdg.map(OsString::from),
            "HOME" => home.map(OsString::from),
            _ => None,
        };
        Pipeline::parse(MINIMAL, Path::new("p.toml"), &lookup).map(|pipeline| pipeline.state_dir)
    };
    assert_eq!(state_dir(Some("/s"), Some("/h")).unwrap(), Path::new("/s/migrans/orders"));
    assert_eq!(state_dir(Some("s"), Some("/h")).unwrap(), Path::new("/h/.local/state/migrans/orders"));
    assert_eq!(state_dir(None, Some("/h")).unwrap(), Path::new("/h/.local/state/migrans/orders"));
    let error = state_dir(None, None).unwrap_err();
    assert!(error.message().contains("\"state_dir\" has no default without the variables"), "{error}");
}

#[test]
fn files_that_cant_be_read_are_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    let error = Pipeline::load(&path).unwrap_err();
    assert_eq!(error.kind(), Kind::PipelineFile);
    assert!(error.report().contains("p.toml") && error.report().contains("No such file"), "{error:?}");
    std::fs::write(&path, b"name = \"\xff\"").unwrap();
    assert!(Pipeline::load(&path).unwrap_err().message().ends_with("p.toml: byte 8 is not UTF-8 text"));
    std::fs::write(&path, MINIMAL.replace("name =", "state_dir = \"s\"\nname =")).unwrap();
    assert_eq!(Pipeline::load(&path).unwrap().state_dir, folder.path().join("s"));
    let error = Pipeline::load(folder.path()).unwrap_err();
    assert!(error.report().contains("directory"), "{error:?}");
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_do_no_harm() {
    assert!(parse(&format!("\u{feff}{}", MINIMAL.replace('\n', "\r\n"))).is_ok());
}

#[test]
fn secrets_are_not_printed() {
    let pipeline = parse(&MINIMAL.replace("uri =", "token = \"${TARGET_TOKEN}\"\nuri =")).unwrap();
    assert!(!format!("{pipeline:?}").contains("hidden"));
}

#[test]
fn the_table_of_keys_is_in_order() {
    let key_names: BTreeSet<_> = KEYS.iter().map(|key| (key.table, key.variants, key.name)).collect();
    assert_eq!(key_names.len(), KEYS.len());
    for key in KEYS {
        assert!(TABLES.iter().any(|table| table.path == key.table), "{}", key.name);
        // The reader of lists has no use for a default value.
        let is_list = matches!(key.shape, Shape::Addresses | Shape::Hosts | Shape::Patterns);
        let Key { default, .. } = key;
        assert!(!(is_list && matches!(default, Default::Value(_))), "{}", key.name);
    }
    for (at, table) in TABLES.iter().enumerate() {
        let around = TABLES.iter().position(|other| Some(other.path) == table.parent());
        assert!(table.path.is_empty() || around.is_some_and(|around| around < at), "{}", table.path);
    }
}

#[test]
fn names_on_the_target_go_with_the_selection_and_with_each_other() {
    let with = |names: &str| MINIMAL.replace("[target]\n", &format!("[target]\nnames = {{ {names} }}\n"));
    let pipeline = parse(&with("default = \"archive\", \"default.a\" = \"old.b\"")).unwrap();
    let entries = [("default", "archive"), ("default.a", "old.b")];
    assert_eq!(pipeline.target.names().entries(), entries.map(|(from, to)| (from.to_owned(), to.to_owned())));
    for (names, problem) in [
        (
            "\"default.a\" = \"x.y\", \"default.b\" = \"x.y\"",
            "\"default.b\" in [target.names] would be \"x.y\", and so would \"default.a\"",
        ),
        ("\"shop.a\" = \"x.y\"", "\"shop.a\" in [target.names] is not selected by [select]"),
        ("shop = \"x\"", "\"shop\" in [target.names] is a database of which [select] takes nothing"),
        ("\"default.a\" = \"x\"", "\"default.a\" in [target.names] names a collection, and \"x\" is none"),
        ("default = \"x.y\"", "\"default\" in [target.names] names a database, and \"x.y\" is none"),
        ("\"default.*\" = \"x.y\"", "\"default.*\" in [target.names] is a pattern"),
        ("\"default.a.b\" = \"x.y\"", "is no name of a database or a collection"),
        ("\"default.a\" = \"x.2y\"", "\"2y\" is no name that Milvus takes"),
        ("default = \"\"", "\"\" is no name that Milvus takes"),
    ] {
        let report = parse(&with(names)).unwrap_err().report();
        assert!(report.contains(problem) && report.contains("p.toml:14:"), "{names}\n{report}");
    }
}

#[test]
fn queues_are_checked_for_what_goes_together() {
    let with = |mq: &str| MINIMAL.replace("type = \"rocksmq\"\npath = \"/mq\"", mq);
    assert_ne!(with(""), MINIMAL);
    let kafka = "type = \"kafka\"\nbrokers = [\"a:9092\"]\n";
    for (mq, problem) in [
        ("type = \"kafka\"\nbrokers = [\"a\"]", "\"a\" is no host:port"),
        ("type = \"kafka\"\nbrokers = [\"a:1\"]\npath = \"/mq\"", "unknown key \"path\""),
        (&format!("{kafka}security = \"sasl_ssl\""), "\"security\" in [source.mq] means a user"),
        (&format!("{kafka}username = \"u\"\npassword = \"p\""), "is set, but \"security\" is \"plaintext\""),
        (&format!("{kafka}username = \"u\""), "is set without \"password\""),
        (&format!("{kafka}[source.mq.tls]\nca = \"x\""), "[source.mq.tls] is set, but \"security\" is"),
        (&format!("{kafka}[source.mq.tls]\nserver_name = \"x\""), "does not go with Kafka"),
        (&format!("{kafka}[source.mq.options]\n\"group.id\" = \"x\""), "is set by the pipeline"),
        (&format!("{kafka}[source.mq.options]\n\"ssl.ca.location\" = \"x\""), "has a key of its own"),
        (&format!("{kafka}[source.mq.options]\n\"fetch.wait.max.ms\" = 5"), "must be a text, not an integer"),
        (
            &format!("{kafka}[source.positions]\n\"c_1v0\" = \"%\""),
            "\"c_1v0\" in [source.positions] is not base64",
        ),
        ("type = \"pulsar\"\nuri = \"http://a:1\"", "does not begin with pulsar://"),
        ("type = \"pulsar\"\nuri = \"pulsar://a\"", "is not a host and a port after that"),
        (
            "type = \"pulsar\"\nuri = \"pulsar://a:1\"\n[source.mq.tls]\nca = \"x\"",
            "is set, but an address begins with pulsar://",
        ),
    ] {
        let report = parse(&with(mq)).unwrap_err().report();
        assert!(report.contains(problem), "{mq}\n{report}");
    }
    let start = MINIMAL.replace("[source]\n", "[source]\nstart = \"yesterday\"\n");
    assert!(parse(&start).unwrap_err().report().contains("\"start\" in [source] can't be \"yesterday\""));
}
