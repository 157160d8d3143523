//! Pipelines that fail at once, since nothing is there to be reached: what is kept of them, and what becomes of them.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::*;
use crate::dataflow::host;

fn open(folder: &Path, runtime: &Handle) -> Manager {
    let rules = Rules {
        folder: folder.to_owned(),
        states: folder.join("pipelines"),
        other_states: Vec::new(),
        variables: Vec::new(),
    };
    let settings = Settings { store: folder.join("server"), rules, attempts: 1000, held_back: |_| None };
    Manager::open(settings, runtime.clone()).unwrap()
}

fn definition(collections: &str) -> Value {
    json!({
        "source": {"etcd": ["http://127.0.0.1:1"], "mq": {"type": "rocksmq", "path": "/nowhere"}},
        "select": {"collections": [collections]},
        "target": {"type": "milvus", "uri": "http://127.0.0.1:1", "token": "hush", "connect_timeout": "100ms"},
        "restart": {"pause": "20ms", "longest_pause": "50ms"},
    })
}

fn wait(manager: &Manager, name: &str, state: State) -> View {
    let began = Instant::now();
    loop {
        let view = manager.get(name).unwrap();
        if view.state == state {
            return view;
        }
        assert!(began.elapsed() < Duration::from_secs(10), "{view:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_pipeline_goes_through_its_life_and_is_brought_back_as_it_was_wanted() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), host::runtime(1).unwrap());
    let manager = open(folder.path(), runtime.handle());
    runtime.block_on(async {
        let put = |name: &'static str, definition, options| {
            let manager = manager.clone();
            async move { manager.put(name, definition, options).await }
        };
        let plain = Options::default;
        assert_eq!(put("a", definition("d.*"), plain()).await.unwrap(), Outcome::Created);
        assert_eq!(put("a", definition("d.*"), plain()).await.unwrap(), Outcome::Unchanged);
        let paused = Options { paused: Some("later".into()), extra: Some(json!({"s": 1})), ..plain() };
        assert_eq!(put("b", definition("d.*"), paused).await.unwrap(), Outcome::Created);
        let error = put("a", definition("e.*"), plain()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        let mut changed = definition("d.*");
        changed["target"]["adopt"] = true.into();
        assert_eq!(put("a", changed.clone(), plain()).await.unwrap(), Outcome::Changed);
        let new = Options { must_be_new: true, ..plain() };
        assert_eq!(put("a", changed, new).await.unwrap_err().kind(), Kind::Conflict);
        let view = wait(&manager, "a", State::Retrying);
        assert!(view.reason.is_some(), "{view:?}");
        assert!(!serde_json::to_string(&view).unwrap().contains("hush"));
        assert_eq!(manager.get("b").unwrap().extra, json!({"s": 1}));
        let view = manager.pause("a", Some("enough".into())).await.unwrap();
        assert_eq!((view.state, view.reason.unwrap().message), (State::Paused, "enough".to_owned()));
        assert_eq!(view.failures, 0, "it does not fail any more");
        let view = manager.resume("b").await.unwrap();
        assert!(matches!(view.state, State::Initial | State::Retrying), "{view:?}");
        assert_eq!(manager.pause("c", None).await.unwrap_err().kind(), Kind::NotFound);
        manager.close().await;
        assert_eq!(manager.pause("a", None).await.unwrap_err().kind(), Kind::Unavailable);
    });
    drop(manager);
    let manager = open(folder.path(), runtime.handle());
    assert_eq!(manager.get("a").unwrap().state, State::Paused);
    assert_eq!(manager.get("a").unwrap().reason.unwrap().message, "enough");
    wait(&manager, "b", State::Retrying);
    runtime.block_on(async {
        manager.remove("a", StateOf::Keep).await.unwrap();
        assert!(manager.get("a").is_none());
        let error = manager.remove("b", StateOf::Remove).await.unwrap_err();
        assert_eq!(error.kind(), Kind::NotFound, "the queue can't be asked: {error}");
        assert_eq!(manager.get("b").unwrap().state, State::Removing);
        let error = manager.put("b", definition("d.*"), Options::default()).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict);
        manager.remove("b", StateOf::Keep).await.unwrap();
        assert!(manager.list().is_empty());
        manager.close().await;
    });
}

#[test]
fn a_stop_does_not_wait_for_a_target_that_says_nothing() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), host::runtime(1).unwrap());
    let manager = open(folder.path(), runtime.handle());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut definition = definition("d.*");
    definition["target"]["uri"] = format!("http://{}", silent.local_addr().unwrap()).into();
    definition["target"]["connect_timeout"] = "1m".into();
    runtime.block_on(async {
        manager.put("a", definition, Options::default()).await.unwrap();
        // It is connecting now.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(manager.get("a").unwrap().state, State::Initial);
        let began = Instant::now();
        assert_eq!(manager.pause("a", None).await.unwrap().state, State::Paused);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        manager.close().await;
    });
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let (folder, runtime) = (tempfile::tempdir().unwrap(), host::runtime(1).unwrap());
    let manager = open(folder.path(), runtime.handle());
    runtime.block_on(async {
        for (name, mut definition) in [("a b", definition("d.*")), ("a", definition("nonsense"))] {
            definition["labels"] = json!({"x": "y"});
            let error = manager.put(name, definition, Options::default()).await.unwrap_err();
            assert_eq!(error.kind(), Kind::PipelineFile, "{error}");
            assert!(!error.parts().is_empty());
        }
        let paused = || Options { paused: Some("no".into()), ..Options::default() };
        manager.put("a", definition("d.*"), paused()).await.unwrap();
        let mut same_folder = definition("d.*");
        same_folder["state_dir"] = folder.path().join("pipelines/a").to_string_lossy().into();
        let error = manager.put("b", same_folder, paused()).await.unwrap_err();
        assert_eq!((error.kind(), error.parts()[0].key.as_deref()), (Kind::Conflict, Some("state_dir")));
        assert_eq!(manager.list().len(), 1);
        assert!(lock(&manager.0.gates).is_empty());
        manager.close().await;
    });
}
