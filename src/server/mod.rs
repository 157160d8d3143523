//! `migrans serve`: many pipelines in one process, made and watched over HTTP.
//!
//! ```text
//!  HTTP ──► api ──► manager ──► unit (a thread each) ──► dataflow::run
//!                      │          └── what it tells of itself: views, events, metrics
//!                      └── book: definitions, and what is wanted of each pipeline
//! ```

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use http::StatusCode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::api::Api;
use self::auth::Tokens;
pub use self::book::StateOf;
use self::config::{Config, Limits};
pub use self::manager::{Manager, Options, Outcome};
use self::problem::Problem;
pub use self::view::{State, View};
use crate::dataflow::host;
use crate::error::{Error, Kind, Result};

pub mod api;
pub mod auth;
pub mod book;
pub mod cdc;
pub mod config;
pub mod definition;
pub mod events;
pub mod guard;
pub mod health;
pub mod listen;
pub mod manager;
pub mod openapi;
pub mod problem;
pub mod unit;
pub mod view;

/// How often a stop is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// Runs the server that the file `path` describes until `stop` is set: then all pipelines stop, and it returns.
///
/// # Errors
/// `PipelineFile` for the file, `Checkpoint` for the store, `Usage` if the address can't be listened on.
pub fn serve(path: &Path, stop: &Arc<AtomicBool>) -> Result<()> {
    // What the server writes is for nobody else: definitions hold secrets.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let config = Config::load(path)?;
    let tls = config.tls.as_ref().map(listen::acceptor).transpose()?;
    private_folder(&config.data_dir)?;
    let runtime = host::runtime(config.threads)?;
    let result = runtime.block_on(async {
        let listener = TcpListener::bind(config.listen).await.map_err(|cause| {
            Error::new(Kind::Usage, format!("can't listen on {}", config.listen)).caused_by(cause)
        })?;
        let address = listener.local_addr().unwrap_or(config.listen);
        let manager = Manager::open(config.settings(path), runtime.handle().clone())?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        tracing::info!(pipelines = manager.list().len(), "serving {scheme}://{address}");
        let tokens = Arc::new(config.tokens());
        if tokens.is_open() {
            tracing::warn!(
                "there are no [tokens] in the server's file: everybody who reaches it may do everything"
            );
        }
        let over = CancellationToken::new();
        let tasks = config.cdc_settings(path)?.map(|settings| {
            let folder = config.settings(path).rules.folder;
            Arc::new(cdc::Service::new(manager.clone(), settings, folder))
        });
        if let Some(tasks) = &tasks {
            tasks.renew_sources().await;
        }
        let app = router(manager.clone(), tokens, config.limits, tasks);
        let serving =
            tokio::spawn(listen::serve(listener, tls, app, config.limits.connections, over.clone()));
        while !stop.load(Ordering::Acquire) {
            tokio::time::sleep(LOOK).await;
        }
        over.cancel();
        manager.close().await;
        drop(serving.await);
        tracing::info!("stopped");
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_millis(500));
    result
}

/// Makes the folder, which others may not look into.
fn private_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |cause: std::io::Error| {
        Error::new(Kind::Checkpoint, format!("can't use data_dir, {}", folder.display()))
            .hint("it must be a folder that this user may write to and own")
            .caused_by(cause)
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)
}

/// Everything that the server answers.
pub fn router(
    manager: Manager,
    tokens: Arc<Tokens>,
    limits: Limits,
    tasks: Option<Arc<cdc::Service>>,
) -> Router {
    let api = Api { manager, body_limit: limits.body };
    // What is mounted here has been let in: `auth::Role` is an extension of each request.
    let known = Router::new()
        .route("/metrics", get(health::metrics))
        .route("/api/v1/pipelines", get(api::list))
        .route("/api/v1/pipelines/{name}", get(api::get).put(api::put).delete(api::remove))
        .route("/api/v1/pipelines/{name}/pause", post(api::pause))
        .route("/api/v1/pipelines/{name}/resume", post(api::resume))
        .route("/api/v1/pipelines/{name}/report", get(api::report))
        .route("/api/v1/pipelines/{name}/events", get(events::events))
        .merge(tasks.map(|tasks| cdc::router(tasks, limits.body, get(health::metrics))).unwrap_or_default())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(from_fn_with_state(tokens, auth::let_in));
    // What says nothing of pipelines is for everybody.
    let open = Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/api/v1/openapi.json", get(openapi::get))
        .method_not_allowed_fallback(no_such_method);
    open.merge(known).with_state(api).layer(from_fn_with_state(limits.request_time, guard::guard))
}

async fn no_such_path() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "there is nothing at this path")
        .hint("/api/v1/openapi.json says what there is")
}

async fn no_such_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not for this path")
}
