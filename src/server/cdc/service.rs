//! What the requests do: tasks are pipelines of the server's manager.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::maintenance;
use super::overlap::{self, Taken};
use super::request::{self, CollectionInfo, Create, Delete, Maintenance, Request};
use super::response::{self, Refusal};
use super::settings::Settings;
use super::task::{self, Kept, is_paused};
use super::translate;
use super::validate;
use crate::dataflow::checkpoint::{self, Checkpoint};
use crate::error::{Error, Kind};
use crate::milvus::channel::VChannel;
use crate::milvus::position::MsgPosition;
use crate::milvus::tso::Tso;
use crate::ownership::Fence;
use crate::pipeline::{Pipeline, References, Surroundings};
use crate::server::StateOf;
use crate::server::auth::Role;
use crate::server::manager::{Manager, Options};
use crate::server::view::{Reason, State, View};
use crate::sinks;

/// The kinds of requests there are.
pub(super) const KINDS: [&str; 8] =
    ["create", "delete", "pause", "resume", "get", "position", "list", "maintenance"];
/// How long a task may take to start before it is said to run, as milvus-cdc's do at once.
const START: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// The tasks of a server.
pub struct Service {
    manager: Manager,
    settings: Settings,
    /// Where relative paths start.
    folder: PathBuf,
    /// One task is made at a time: each has to know what the others take.
    making: Mutex<()>,
}

/// A task and its pipeline.
struct Found {
    kept: Kept,
    view: View,
}

impl Service {
    /// The tasks among the pipelines of `manager`. Relative paths in `settings` start at `folder`.
    pub fn new(manager: Manager, settings: Settings, folder: PathBuf) -> Service {
        Service { manager, settings, folder, making: Mutex::default() }
    }

    /// Has all tasks go on with the source as it is set now: another address of its etcd, another password. To be called
    /// once, when the server is started.
    pub async fn renew_sources(&self) {
        let tasks = self.tasks().into_iter().filter(|found| found.view.state != State::Removing);
        for Found { kept, view } in tasks {
            let Some(unit) = self.manager.unit(&view.name) else { continue };
            let mut definition = unit.record().definition;
            let mut source = self.settings.source.clone();
            for key in ["start", "positions"] {
                source.remove(key);
                // Where it began stays so.
                if let Some(value) = definition["source"].get(key) {
                    source.insert(key.to_owned(), value.clone());
                }
            }
            definition["source"] = source.into();
            if let Err(error) = self.manager.put(&view.name, definition, Options::default()).await {
                let error =
                    error.context(format!("the task {} goes on with its former source", kept.task_id));
                tracing::error!("{}", error.report());
            }
        }
    }

    /// Answers the request in `body`, of somebody who may do what `role` says.
    pub async fn answer(&self, body: &[u8], role: Role) -> Value {
        let request = match Request::parse(body) {
            Ok(request) => request,
            Err(error) => {
                return Refusal::server(format!("fail to unmarshal the request, error: {error}")).body();
            }
        };
        if !KINDS.contains(&request.kind.as_str()) {
            let message = format!("invalid 'request_type' param, can be set [{}]", KINDS.join(" "));
            return Refusal::client(message).body();
        }
        if role < Role::Write && !matches!(request.kind.as_str(), "get" | "list" | "position") {
            let message = "this token may look, but not change anything".to_owned();
            return Refusal { code: 403, message }.of_handling(&request.kind).body();
        }
        match self.handle(&request).await {
            Ok(data) => response::success(data),
            Err(refusal) => {
                tracing::warn!(kind = request.kind, code = refusal.code, "{}", refusal.message);
                refusal.body()
            }
        }
    }

    async fn handle(&self, Request { kind, data }: &Request) -> Result<Option<Value>, Refusal> {
        let undecodable =
            |error: String| Refusal::server(format!("fail to decode the {kind} request, error: {error}"));
        let task_id = || request::task_id(data).map_err(undecodable);
        let done = match kind.as_str() {
            "create" => {
                let request = Create::decode(data).map_err(undecodable)?;
                self.create(request).await.map(|task_id| Some(json!({ "task_id": task_id })))
            }
            "delete" => {
                let request = Delete::decode(data).map_err(undecodable)?;
                self.delete(&request).await.map(|()| None)
            }
            "pause" => self.pause(&task_id()?).await.map(|()| None),
            "resume" => self.resume(&task_id()?).await.map(|()| None),
            "get" => self.get(&task_id()?).map(|task| Some(json!({ "task": task }))),
            "position" => self.position(&task_id()?).await.map(Some),
            "list" => {
                let tasks: Vec<_> = self.tasks().iter().map(|found| found.kept.shown(&found.view)).collect();
                Ok(Some(json!({ "tasks": tasks })))
            }
            _ => {
                let request = Maintenance::decode(data).map_err(undecodable)?;
                Ok(Some(json!({ "State": maintenance::answer(&request) })))
            }
        };
        done.map_err(|refusal| refusal.of_handling(kind))
    }

    /// All tasks, by id.
    fn tasks(&self) -> Vec<Found> {
        let found = |view: View| Kept::of(&view.extra).map(|kept| Found { kept, view });
        let mut tasks: Vec<Found> = self.manager.list().into_iter().filter_map(found).collect();
        tasks.sort_by(|one, other| one.kept.task_id.cmp(&other.kept.task_id));
        tasks
    }

    fn find(&self, task_id: &str) -> Option<Found> {
        let view = self.manager.get(&task::pipeline_name(task_id))?;
        let kept = Kept::of(&view.extra)?;
        (kept.task_id == task_id).then_some(Found { kept, view })
    }

    /// Whether there is such a task, and is to be.
    fn is_there(&self, task_id: &str) -> bool {
        self.find(task_id).is_some_and(|found| found.view.state != State::Removing)
    }

    fn find_or_refuse(&self, task_id: &str) -> Result<Found, Refusal> {
        self.find(task_id).ok_or_else(|| Refusal::client(format!("not found the task, task_id: {task_id}")))
    }

    async fn create(&self, request: Create) -> Result<String, Refusal> {
        let now = Tso::now();
        if !request.task_id.is_empty() && self.is_there(&request.task_id) {
            return Ok(request.task_id);
        }
        validate::create(&request, &self.settings.limits)?;
        if !request.kafka.address.is_empty() {
            let message =
                "fail to connect the kafka: there is no target of that kind here, set milvus_connect_param";
            return Err(Refusal::server(message));
        }
        let task_id = if request.task_id.is_empty() { task::new_id() } else { request.task_id.clone() };
        let name = task::pipeline_name(&task_id);
        // Whether the target is there, without holding up anybody else. The rest of the request is judged below.
        let everything = CollectionInfo { name: "*".to_owned(), ..CollectionInfo::default() };
        let target = Create {
            milvus: request.milvus.clone(),
            collection_infos: vec![everything],
            ..Create::default()
        };
        self.connect(&translate::definition(&name, &target, &[], &self.settings.source, now)?).await?;

        let _alone = self.making.lock().await;
        if self.is_there(&task_id) {
            return Ok(task_id);
        }
        let target = translate::target_uri(&request.milvus);
        let tasks = self.tasks();
        let taken: Vec<Taken> = tasks
            .iter()
            .filter(|found| found.kept.target == target)
            .map(|found| found.kept.taken())
            .collect();
        let excluded = overlap::exclusions(&request, &taken)?;
        let most = self.settings.limits.max_tasks;
        if tasks.len() >= most {
            return Err(Refusal::server(format!("the task num has reach the limit, {most}")));
        }
        let databases = request.db_collections.iter().flatten().flat_map(|(_, infos)| infos);
        request.collection_infos.iter().chain(databases).try_for_each(validate::positions)?;
        validate::rpc_position(&request.rpc_channel)?;
        let definition = translate::definition(&name, &request, &excluded, &self.settings.source, now)?;
        let options = Options {
            extra: Some(Kept::new(&task_id, &request, excluded).extra()),
            must_be_new: true,
            ..Options::default()
        };
        self.manager.put(&name, definition, options).await.map_err(|error| refusal(&error))?;
        // A task that can't begin is none, as in milvus-cdc.
        let failure = match self.started(&name).await {
            Some(View { state: State::Failed | State::Retrying, reason, .. }) => reason,
            _ => return Ok(task_id),
        };
        if let Err(error) = self.manager.remove(&name, StateOf::Remove).await {
            tracing::warn!("{}", error.context("of a task that did not start, something stays").report());
            drop(self.manager.remove(&name, StateOf::Keep).await);
        }
        Err(Refusal::client(format!("fail to start the task: {}", words(failure.as_ref()))))
    }

    /// Whether there is a target as `definition` has it.
    async fn connect(&self, definition: &Value) -> Result<(), Refusal> {
        let pipeline = self.read(definition).map_err(|error| refusal(&error))?;
        let connected = sinks::connect(&pipeline.target, Fence::open()).await;
        connected.map(drop).map_err(|error| {
            Refusal::server(format!("fail to connect the milvus: {}", words(Some(&Reason::of(&error)))))
        })
    }

    fn read(&self, definition: &Value) -> crate::Result<Pipeline> {
        let nothing = |_: &str| None;
        let surroundings = Surroundings {
            folder: &self.folder,
            lookup: &nothing,
            references: References::InSecrets,
            states: Some(&self.folder),
        };
        Pipeline::from_values(definition, &surroundings)
    }

    /// The pipeline `name` once it is known whether it starts, or after a while.
    async fn started(&self, name: &str) -> Option<View> {
        let began = Instant::now();
        loop {
            let view = self.manager.get(name)?;
            if view.state != State::Initial || began.elapsed() > START {
                return Some(view);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn delete(&self, request: &Delete) -> Result<(), Refusal> {
        match self.find(&request.task_id) {
            None if request.ignore_not_found => Ok(()),
            None => Err(Refusal::client(format!("not found the task, task_id: {}", request.task_id))),
            Some(found) => {
                let removed = self.manager.remove(&found.view.name, StateOf::Remove).await;
                removed.map(drop).map_err(|error| {
                    let words = words(Some(&Reason::of(&error)));
                    Refusal::server(format!(
                        "fail to delete the task meta, task_id: {}: {words}",
                        request.task_id
                    ))
                })
            }
        }
    }

    async fn pause(&self, task_id: &str) -> Result<(), Refusal> {
        let found = self.find_or_refuse(task_id)?;
        if is_paused(found.view.state) {
            return Err(Refusal::client(format!("the task has paused, task_id: {task_id}")));
        }
        let reason = Some("manually pause through http interface".to_owned());
        let paused = self.manager.pause(&found.view.name, reason).await;
        paused.map(drop).map_err(|error| {
            let words = words(Some(&Reason::of(&error)));
            Refusal::server(format!("fail to update the task state, task_id: {task_id}: {words}"))
        })
    }

    async fn resume(&self, task_id: &str) -> Result<(), Refusal> {
        let found = self.find_or_refuse(task_id)?;
        if !is_paused(found.view.state) {
            return Err(Refusal::client(format!("the task has running, task_id: {task_id}")));
        }
        let failed = |reason: Option<&Reason>| {
            Refusal::server(format!("fail to start the task, task_id: {task_id}: {}", words(reason)))
        };
        let resumed = self.manager.resume(&found.view.name).await;
        resumed.map_err(|error| failed(Some(&Reason::of(&error))))?;
        match self.started(&found.view.name).await {
            Some(View { state: State::Failed, reason, .. }) => Err(failed(reason.as_ref())),
            _ => Ok(()),
        }
    }

    fn get(&self, task_id: &str) -> Result<response::Task, Refusal> {
        if task_id.is_empty() {
            return Err(Refusal::client("task_id is empty"));
        }
        let found = self.find(task_id);
        found
            .map(|found| found.kept.shown(&found.view))
            .ok_or_else(|| Refusal::client(format!("not found: [{task_id}]")))
    }

    /// Where the task would go on: up to there everything is on the target. Without an id, of all tasks.
    async fn position(&self, task_id: &str) -> Result<Value, Refusal> {
        let tasks = if task_id.is_empty() { self.tasks() } else { self.find(task_id).into_iter().collect() };
        let mut positions = Vec::new();
        for found in tasks {
            let Some(pipeline) = self.manager.unit(&found.view.name).and_then(|unit| unit.pipeline()) else {
                continue;
            };
            let read = tokio::task::spawn_blocking(move || {
                // Before its first commit a task has none.
                let records = checkpoint::look(&pipeline.state_dir).unwrap_or_default();
                Checkpoint::from_records(&records)
            });
            let checkpoint = read
                .await
                .map_err(|error| Refusal::server(error.to_string()))?
                .map_err(|error| Refusal::server(words(Some(&Reason::of(&error)))))?;
            positions.extend(positions_of(&checkpoint));
        }
        // milvus-cdc has no empty list.
        let positions = Some(positions).filter(|positions| !positions.is_empty());
        Ok(json!({ "positions": positions, "op_positions": null, "target_positions": null }))
    }
}

/// Where each vchannel of the collections that are there is read on.
fn positions_of(checkpoint: &Checkpoint) -> Vec<response::Position> {
    let Some(frontier) = checkpoint.frontier else { return Vec::new() };
    let of_channel = |id: i64, vchannel: &VChannel| {
        let position = checkpoint.positions.get(&vchannel.pchannel())?;
        let position = MsgPosition { position: position.clone(), time: frontier };
        Some(response::Position {
            collection_id: id,
            channel_name: vchannel.to_string(),
            time: frontier.millis(),
            tt: frontier.0,
            msg_id: position.to_base64(vchannel),
        })
    };
    let collections = checkpoint.applied.collections.values();
    collections
        .flat_map(|collection| {
            collection.vchannels.iter().filter_map(move |vchannel| of_channel(collection.id.0, vchannel))
        })
        .collect()
}

/// An error in one line.
fn words(reason: Option<&Reason>) -> String {
    let Some(reason) = reason else { return "it can't be told why".to_owned() };
    let message = reason.message.replace('\n', "; ");
    match &reason.hint {
        Some(hint) => format!("{message} ({hint})"),
        None => message,
    }
}

/// What is wrong with a definition is what is wrong with the request.
fn refusal(error: &Error) -> Refusal {
    let words = words(Some(&Reason::of(error)));
    match error.kind() {
        Kind::PipelineFile | Kind::Conflict => Refusal::client(words),
        _ => Refusal::server(words),
    }
}

/// The answer to anything but a `POST`.
pub(super) fn wrong_method() -> Value {
    Refusal { code: 405, message: "only support the POST method".to_owned() }.body()
}

/// The answer to a body that did not arrive.
pub(super) fn unreadable(error: impl std::fmt::Display) -> Value {
    Refusal::server(format!("fail to read the request body, error: {error}")).body()
}

/// The answer if there is none, which is a defect.
pub(super) fn unfinished(error: &tokio::task::JoinError) -> Value {
    tracing::error!("a request to /cdc was not finished: {error}");
    Refusal::server("the request was not finished").body()
}
