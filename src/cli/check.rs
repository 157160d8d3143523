//! `migrans check`: every problem in one go, and what would be done.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use crate::check::{obstacles, stray_positions};
use crate::dataflow::checkpoint::{self, Checkpoint, Records, Store};
use crate::dataflow::credits::Credits;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::Catalog;
use crate::ownership::{Fence, election};
use crate::pipeline::{Names, Pipeline, TargetConfig};
use crate::sinks;
use crate::sources::catalog::CatalogSource;
use crate::sources::{self, Context};

/// Checks the pipeline in the file `path`.
pub fn check(path: &Path, offline: bool) -> Result<()> {
    let pipeline = Pipeline::load(path)?;
    println!("pipeline {:?}: the file is well-formed", pipeline.name);
    if offline {
        return Ok(());
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(
            |cause| Error::new(Kind::Internal, "can't start the runtime for calls").caused_by(cause),
        )?;
    let mut problems = Vec::new();
    // Before the others: it has a runtime of its own.
    let shared = keep(&mut problems, election::look(&pipeline)).flatten();
    let shared = shared.map(|(who, records)| {
        println!("owner    {who}");
        records
    });
    problems.extend(runtime.block_on(connect_all(&pipeline, shared.as_ref())));
    runtime.shutdown_background();
    match problems.len() {
        0 => {
            println!("nothing stands in the way");
            Ok(())
        }
        1 => Err(problems.into_iter().next().unwrap_or_else(|| Error::new(Kind::Internal, "no problem"))),
        count => {
            for problem in &problems {
                eprintln!("error: {}", problem.report());
            }
            Err(Error::new(Kind::Refused, format!("{count} problems, see above")))
        }
    }
}

/// Everything that can be found out, each part on its own, so that one problem does not hide another.
async fn connect_all(pipeline: &Pipeline, shared: Option<&Records>) -> Vec<Error> {
    let mut problems = Vec::new();
    // What is in the etcd counts; the state folder is only a copy then, and the owner's, if that is on this machine.
    let (checkpoint, place) = match shared.filter(|records| !records.is_empty()) {
        Some(records) => (Checkpoint::from_records(records), "in the etcd".to_owned()),
        None => (open_state(pipeline), pipeline.state_dir.display().to_string()),
    };
    let checkpoint = keep(&mut problems, checkpoint).unwrap_or_default();
    match checkpoint.frontier {
        Some(frontier) => println!("state    {place}: resumes after {frontier}"),
        None => println!("state    {place}: a first start"),
    }
    if let Some(description) = keep(&mut problems, open_queue(pipeline)) {
        println!("queue    {description}");
    }
    let select = pipeline.select.clone();
    let source = CatalogSource::connect(&pipeline.source, move |name| select.matches(name)).await;
    let mut wanted = None;
    if let Some(source) = keep(&mut problems, source) {
        let source = source.with_access(pipeline.catalog.rbac);
        println!("source   {}", source.describe());
        let recognised = match source.standing().await {
            Ok(standing) => checkpoint.recognise(&standing).map(drop),
            Err(error) => Err(error),
        };
        keep(&mut problems, recognised);
        wanted = keep(&mut problems, source.read().await).map(|read| read.catalog);
    }
    let sink = sinks::connect(&pipeline.target, Fence::open()).await;
    if let Some(sink) = keep(&mut problems, sink) {
        println!("target   {}", sink.describe());
        let adopt = matches!(&pipeline.target, TargetConfig::Milvus(target) if target.adopt);
        if let Some(wanted) = &wanted
            && let Some(found) = keep(&mut problems, obstacles(&*sink, wanted, &checkpoint, adopt).await)
        {
            problems.extend(found);
        }
    }
    if let Some(wanted) = wanted.as_ref().filter(|_| checkpoint.frontier.is_none()) {
        problems.extend(stray_positions(&pipeline.source, wanted));
    }
    if let Some(wanted) = &wanted {
        print_plan(wanted, &checkpoint, &pipeline.target.names());
    }
    problems
}

fn keep<T>(problems: &mut Vec<Error>, result: Result<T>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            problems.push(error);
            None
        }
    }
}

fn open_state(pipeline: &Pipeline) -> Result<Checkpoint> {
    if !pipeline.state_dir.exists() {
        return Ok(Checkpoint::default());
    }
    let mut store = Store::open(&pipeline.state_dir)?;
    Checkpoint::from_records(&checkpoint::load(&mut store, pipeline)?)
}

fn open_queue(pipeline: &Pipeline) -> Result<String> {
    let scratch = std::env::temp_dir().join(format!("migrans-check-{}", std::process::id()));
    let stop = Arc::new(AtomicBool::new(false));
    let context = Context::new(Credits::new(0), Arc::default(), Arc::clone(&stop), scratch.clone());
    let result = sources::connect(&pipeline.source.mq, context);
    stop.store(true, std::sync::atomic::Ordering::Release);
    let result = result.map(drop).and_then(|()| sources::probe(&pipeline.source.mq));
    // Left over at worst in the system's folder for temporary files.
    drop(std::fs::remove_dir_all(scratch));
    result
}

fn print_plan(wanted: &Catalog, checkpoint: &Checkpoint, names: &Names) {
    println!("selected {} collection(s)", wanted.collections.len());
    for collection in wanted.collections.values() {
        let state = if checkpoint.applied.collections.contains_key(&collection.id) {
            "goes on"
        } else {
            "is to be created"
        };
        println!(
            "  {:<40} {state}: {} shard(s), {} partition(s), {} field(s), {} index(es), {} alias(es){}",
            names.both(&collection.name),
            collection.shards,
            collection.partitions.len(),
            collection.schema.fields.len(),
            collection.indexes.len(),
            wanted.aliases.values().filter(|alias| alias.collection == collection.id).count(),
            if collection.load.is_some() { ", loaded" } else { "" },
        );
    }
    if let Some(access) = &wanted.access {
        let (roles, grants, users) = (access.roles.len(), access.grants.len(), access.users.len());
        println!("  {roles} role(s), {grants} grant(s), and the roles of {users} user(s)");
    }
}
