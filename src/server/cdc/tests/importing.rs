//! `cdc.yaml` and the server's file that it becomes.

use std::path::Path;

use crate::server::cdc::import::server_file;
use crate::server::cdc::settings::Table;

/// All keys there are, of a source on Pulsar.
const PULSAR: &str = r"
address: 0.0.0.0:8444
maxTaskNum: 50
maxNameLength: 200
logLevel: info
detectDeadLock: false
batchMode: true
dryRun: false
replicateID: primary
retry: {retryTimes: 3, initBackOff: 1, maxBackOff: 10}
packer:
  timerInterval: 5000
  memoryLimit: 4
metaStoreConfig:
  storeType: etcd
  etcd:
    address: [http://127.0.0.1:2379]
  rootPath: cdc-by-dev
sourceConfig:
  etcd:
    address:
      - http://etcd-1:2379
      - etcd-2:2379
    rootPath: prod
    metaSubPath: meta
    enableAuth: true
    username: root
    password: pa$$word
    enableTLS: true
    tlsCertPath: /cert/client.pem
    tlsKeyPath: /cert/client.key
    tlsCACertPath: /cert/ca.pem
    tlsMinVersion: 1.3
  readChanLen: 10
  channelNum: 16
  timeTickInterval: 500
  defaultPartitionName: _default
  replicateChan: prod-replicate-msg
  pulsar:
    address: pulsar://pulsar:6650
    webAddress: pulsar:80
    webPort: 80
    maxMessageSize: 5242880
    tenant: team
    namespace: prod
    authPlugin: org.apache.pulsar.client.impl.auth.AuthenticationToken
    authParams: token:hush
  kafka:
    address: kafka:9092
surprise: {inside: 1}
";

const KAFKA: &str = r"
address: localhost:8444
maxTaskNum: 0
sourceConfig:
  ETCDADDRESS: [127.0.0.1:2379]
  etcdRootPath: by-dev
  etcdMetaSubPath: meta
  etcd:
    rootPath: ignored
  kafka:
    address: kafka-1:9092, kafka-2:9092
    saslUsername: reader
    saslPassword: secret
    saslMechanisms: SCRAM-SHA-256
    securityProtocol: SASL_PLAINTEXT
    consumer: {client.id: cdc, fetch.wait.max.ms: 50}
    producer: {client.id: cdc}
";

fn read(yaml: &str) -> (String, toml::Table) {
    let text = server_file(yaml, "cdc.yaml").unwrap();
    let file: toml::Table = text.parse().unwrap();
    // What comes out is what the server reads.
    let table: Table = file["cdc"].clone().try_into().unwrap();
    table.settings(Path::new("/etc/migrans"), &|_| None).unwrap();
    (text, file)
}

#[test]
fn every_key_is_carried_over_or_named() {
    let (text, file) = read(PULSAR);
    let wanted: toml::Table = r#"
        listen = "0.0.0.0:8444"
        data_dir = "/var/lib/migrans"
        insecure = true
        [cdc]
        max_task_num = 50
        max_name_length = 200
        replicate_channel = "prod-replicate-msg"
        [cdc.source]
        etcd = ["https://etcd-1:2379", "https://etcd-2:2379"]
        root_path = "prod"
        meta_path = "meta"
        etcd_username = "root"
        etcd_password = "pa$$$$word"
        etcd_tls = { ca = "/cert/ca.pem", cert = "/cert/client.pem", key = "/cert/client.key" }
        [cdc.source.mq]
        type = "pulsar"
        uri = "pulsar://pulsar:6650"
        tenant = "team"
        namespace = "prod"
        token = "hush"
    "#
    .parse()
    .unwrap();
    assert_eq!(file, wanted);
    for named in [
        "logLevel: start it as `migrans --log-level info serve`",
        "insecure: milvus-cdc lets anybody in",
        "detectDeadLock: ",
        "batchMode: ",
        "dryRun: ",
        "replicateID: ",
        "retry: ",
        "packer: ",
        "metaStoreConfig: ",
        "sourceConfig.etcd.tlsMinVersion: ",
        "sourceConfig.readChanLen: ",
        "sourceConfig.channelNum: ",
        "sourceConfig.timeTickInterval: ",
        "sourceConfig.defaultPartitionName: ",
        "sourceConfig.pulsar.webAddress: ",
        "sourceConfig.pulsar.webPort: ",
        "sourceConfig.pulsar.maxMessageSize: ",
        "sourceConfig.kafka: Pulsar goes before it",
        "surprise.inside: milvus-cdc has no such key either",
    ] {
        assert!(text.contains(named), "{named}\n{text}");
    }
    let named = text.lines().filter(|line| line.starts_with("#   ")).count();
    assert_eq!(named, 17, "{text}");
}

#[test]
fn deprecated_keys_and_kafka() {
    let (text, file) = read(KAFKA);
    let wanted: toml::Table = r#"
        listen = "127.0.0.1:8444"
        data_dir = "/var/lib/migrans"
        [cdc.source]
        etcd = ["http://127.0.0.1:2379"]
        root_path = "by-dev"
        meta_path = "meta"
        [cdc.source.mq]
        type = "kafka"
        brokers = ["kafka-1:9092", "kafka-2:9092"]
        security = "sasl_plaintext"
        sasl_mechanism = "SCRAM-SHA-256"
        username = "reader"
        password = "secret"
        options = { "client.id" = "cdc", "fetch.wait.max.ms" = "50" }
    "#
    .parse()
    .unwrap();
    assert_eq!(file, wanted);
    assert!(text.contains("sourceConfig.etcd: etcdAddress goes before it"), "{text}");
    assert!(text.contains("sourceConfig.kafka.producer: nothing is ever written"), "{text}");
}

#[test]
fn what_is_set_but_switched_off_is_named() {
    let yaml = KAFKA.replace("ETCDADDRESS: [127.0.0.1:2379]", "readChanLen: 1").replace(
        "    rootPath: ignored",
        "    address: [http://e:2379]\n    username: root\n    password: x\n    tlsCertPath: y",
    );
    let (text, file) = read(&yaml);
    assert_eq!(file["cdc"]["source"].get("etcd_username"), None);
    for named in [
        "etcd.username: enableAuth is not set",
        "etcd.tlsCertPath: enableTLS is not set",
        "etcdRootPath: it has no effect",
    ] {
        assert!(text.contains(named), "{named}\n{text}");
    }
}

#[test]
fn what_can_not_be_carried_over_at_all_is_an_error() {
    let without = |line: &str| KAFKA.replace(line, "");
    for (yaml, message) in [
        ("a: [".to_owned(), "cdc.yaml is no YAML"),
        ("- 1".to_owned(), "it holds no keys"),
        (without("  ETCDADDRESS: [127.0.0.1:2379]"), "sourceConfig.etcd.address is missing"),
        (without("    address: kafka-1:9092, kafka-2:9092"), "neither sourceConfig.pulsar.address nor"),
        (KAFKA.replace("maxTaskNum: 0", "maxTaskNum: many"), "maxTaskNum must be a number, not many"),
        (PULSAR.replace("AuthenticationToken", "AuthenticationTls"), "authPlugin is \"org.apache"),
        (PULSAR.replace("enableTLS: true", "enableTLS: perhaps"), "must be true or false, not perhaps"),
    ] {
        let error = server_file(&yaml, "cdc.yaml").unwrap_err();
        assert!(error.message().contains(message), "{error}");
    }
}
