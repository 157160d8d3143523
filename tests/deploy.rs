//! What is in `deploy/`: each file is one that its reader takes, and they agree with each other and with the program.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test may panic")]
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use migrans::pipeline::Pipeline;
use migrans::server::config::Config;
use serde_json::Value;

fn deploy(path: &str) -> PathBuf {
    Path::new("deploy").join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(deploy(path)).unwrap()
}

/// The documents of a manifest, by kind.
fn manifest(path: &str) -> BTreeMap<String, Value> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text(path)).unwrap();
    let kinds =
        documents.into_iter().map(|document| (document["kind"].as_str().unwrap().to_owned(), document));
    kinds.collect()
}

/// The variables that a secret gives to a container.
fn variables(secret: &Value) -> impl Fn(&str) -> Option<OsString> + '_ {
    |name| Some(secret["stringData"].get(name)?.as_str()?.into())
}

/// `text` with its references resolved, for a reader that takes them from its own environment.
fn resolved(text: &str, secret: &Value) -> String {
    let mut text = text.to_owned();
    for (name, value) in secret["stringData"].as_object().unwrap() {
        text = text.replace(&format!("${{{name}}}"), value.as_str().unwrap());
    }
    text
}

#[test]
fn the_server_in_kubernetes() {
    let found = manifest("kubernetes/serve.yaml");
    let (config, set) = (&found["ConfigMap"], &found["StatefulSet"]);
    let file = resolved(config["data"]["server.toml"].as_str().unwrap(), &found["Secret"]);
    let config = Config::parse(&file, Path::new("/etc/migrans/server.toml")).unwrap();
    assert!(!config.tokens().is_open() && config.tls.is_some());
    assert!(config.cdc_settings(Path::new("/etc/migrans/server.toml")).unwrap().is_some());
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert_eq!(set["spec"]["replicas"], 1);
    assert_eq!(container["args"], serde_json::json!(["serve", "--config", "/etc/migrans/server.toml"]));
    assert_eq!(container["ports"][0]["containerPort"], config.listen.port());
    for (probe, path) in
        [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]
    {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["scheme"], "HTTPS");
    }
    assert_eq!(found["Service"]["spec"]["ports"][0]["targetPort"], container["ports"][0]["name"]);
    let mounts = container["volumeMounts"].as_array().unwrap();
    let paths: Vec<&str> = mounts.iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
    assert!(paths.contains(&config.data_dir.to_str().unwrap()), "{paths:?}");
    check_pod(&found, pod);
}

#[test]
fn two_that_share_a_pipeline_in_kubernetes() {
    let found = manifest("kubernetes/run.yaml");
    let file = found["ConfigMap"]["data"]["pipeline.toml"].as_str().unwrap();
    let lookup = variables(&found["Secret"]);
    let pipeline = Pipeline::parse(file, Path::new("/etc/migrans/pipeline.toml"), &lookup).unwrap();
    assert!(pipeline.ownership.is_some());
    let deployment = &found["Deployment"]["spec"];
    assert_eq!(deployment["replicas"], 2);
    let pod = &deployment["template"]["spec"];
    let container = &pod["containers"][0];
    let port = &container["ports"][0];
    let args =
        ["run", "/etc/migrans/pipeline.toml", "--metrics", &format!("0.0.0.0:{}", port["containerPort"])];
    assert_eq!(container["args"], serde_json::json!(args));
    for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], port["name"]);
    }
    assert!(pod["affinity"]["podAntiAffinity"].is_object());
    assert!(pipeline.state_dir.starts_with("/var/lib/migrans"));
    check_pod(&found, pod);
}

/// What holds for every pod of ours.
fn check_pod(found: &BTreeMap<String, Value>, pod: &Value) {
    let container = &pod["containers"][0];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(container["securityContext"]["allowPrivilegeEscalation"], false);
    assert!(container["resources"]["limits"]["memory"].is_string());
    // Longer than a stop takes.
    assert!(pod["terminationGracePeriodSeconds"].as_u64().unwrap() > 15);
    // The user of the image.
    let user = pod["securityContext"]["runAsUser"].to_string();
    assert!(text("Dockerfile").contains(&format!("USER {user}:{user}")));
    assert_eq!(container["envFrom"][0]["secretRef"]["name"], found["Secret"]["metadata"]["name"]);
    let claims = found.get("StatefulSet").map(|set| &set["spec"]["volumeClaimTemplates"]);
    let claims =
        claims.and_then(Value::as_array).into_iter().flatten().map(|claim| &claim["metadata"]["name"]);
    let volumes = pod["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]);
    let volumes: Vec<&Value> = volumes.chain(claims).collect();
    for mount in container["volumeMounts"].as_array().unwrap() {
        assert!(volumes.contains(&&mount["name"]), "{mount}");
    }
}

#[test]
fn the_units_are_hardened_and_start_what_there_is() {
    for (unit, command) in [
        ("systemd/migrans.service", "migrans serve --config /etc/migrans/server.toml"),
        ("systemd/migrans@.service", "migrans run /etc/migrans/%i.toml"),
    ] {
        let unit = text(unit);
        assert!(unit.contains(command));
        for line in [
            "NoNewPrivileges=yes",
            "ProtectSystem=strict",
            "CapabilityBoundingSet=\n",
            "SystemCallFilter=@system-service",
            "RestartPreventExitStatus=2",
            "User=migrans",
        ] {
            assert!(unit.contains(line), "{line}");
        }
    }
}

#[test]
fn the_image_is_built_with_a_compiler_that_is_new_enough() {
    let dockerfile = text("Dockerfile");
    let version = env!("CARGO_PKG_RUST_VERSION");
    assert!(dockerfile.contains(&format!("FROM rust:{version}-slim-")), "{version}");
    assert!(dockerfile.contains("--locked"));
    // What a build reads is in it.
    let ignore = text("Dockerfile.dockerignore");
    for needed in ["Cargo.toml", "Cargo.lock", "build.rs", "src", "proto", "benches", "sim", ".cargo"] {
        assert!(ignore.lines().any(|line| line == format!("!{needed}")), "{needed}");
    }
}
