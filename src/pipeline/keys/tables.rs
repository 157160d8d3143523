//! The tables.

use super::Table;

/// The top level.
pub static TOP: Table =
    Table { path: "", variants: &[], required: true, free: None, meaning: "The pipeline as a whole." };
/// `[source]`
pub static SOURCE: Table = Table {
    path: "source",
    variants: &[],
    required: true,
    free: None,
    meaning: "The Milvus cluster that is followed. Its catalog is read from its etcd, its rows from its message \
              queue; nothing is written to either.",
};
/// `[source.etcd_tls]`
pub static SOURCE_ETCD_TLS: Table = Table {
    path: "source.etcd_tls",
    variants: &[],
    required: false,
    free: None,
    meaning: "TLS for the connection to etcd, beyond what `https://` in its addresses does by itself.",
};
/// `[source.milvus]`
pub static SOURCE_MILVUS: Table = Table {
    path: "source.milvus",
    variants: &[],
    required: false,
    free: None,
    meaning: "How `migrans verify` reads the source's rows: through its proxy, as any client does. Nothing else uses this.",
};
/// `[source.milvus.tls]`
pub static SOURCE_MILVUS_TLS: Table = Table {
    path: "source.milvus.tls",
    variants: &[],
    required: false,
    free: None,
    meaning: "TLS for the connection to the source's proxy, beyond what `https://` in its address does by itself.",
};
/// `[source.mq]`
pub static SOURCE_MQ: Table = Table {
    path: "source.mq",
    variants: &[],
    required: true,
    free: None,
    meaning: "The message queue of the source.",
};
/// `[source.mq.tls]`
pub static SOURCE_MQ_TLS: Table = Table {
    path: "source.mq.tls",
    variants: &["kafka", "pulsar"],
    required: false,
    free: None,
    meaning: "TLS for the connections to the brokers.",
};
/// `[source.mq.options]`
pub static SOURCE_MQ_OPTIONS: Table = Table {
    path: "source.mq.options",
    variants: &["kafka"],
    required: false,
    free: Some(
        "any property of librdkafka that a consumer has, as a text: `\"socket.keepalive.enable\" = \"true\"`",
    ),
    meaning: "Further properties of the Kafka client, passed through as they are. Those that decide what is read and \
              from where are set by the pipeline and refused here.",
};
/// `[source.positions]`
pub static SOURCE_POSITIONS: Table = Table {
    path: "source.positions",
    variants: &[],
    required: false,
    free: Some(
        "the name of a vchannel: its position, in the base64 form of Milvus' `MsgPosition` that milvus-cdc and \
         milvus-backup hand out",
    ),
    meaning: "Where single vchannels are begun, in place of what `start` says. Of such a vchannel everything later than \
              the time in its position is taken, and nothing earlier. They must stay between runs, since what lies before them is not on the target.",
};
/// `[select]`
pub static SELECT: Table = Table {
    path: "select",
    variants: &[],
    required: true,
    free: None,
    meaning: "Which collections the pipeline takes. A pattern is `database.collection`; in either part `*` stands \
              for any run of characters and `?` for any single one, neither reaches over the dot, and case matters. \
              Collections that appear later are taken as well if they match.",
};
/// `[catalog]`
pub static CATALOG: Table = Table {
    path: "catalog",
    variants: &[],
    required: false,
    free: None,
    meaning: "What is carried over beside collections, their aliases, indexes, properties and load states. `docs/catalog.md` \
              lists all of it.",
};
/// `[target]`
pub static TARGET: Table =
    Table { path: "target", variants: &[], required: true, free: None, meaning: "Where the changes go." };
/// `[target.tls]`
pub static TARGET_TLS: Table = Table {
    path: "target.tls",
    variants: &["milvus"],
    required: false,
    free: None,
    meaning: "TLS for the connection to the target, beyond what `https://` in its address does by itself.",
};
/// `[target.names]`
pub static TARGET_NAMES: Table = Table {
    path: "target.names",
    variants: &["milvus"],
    required: false,
    free: Some(
        "names at the source, `database` or `database.collection`: the name on the target, of the same form",
    ),
    meaning: "Under which names things stand on the target, where these are not the source's: `\"shop\" = \"archive\"` for a \
              whole database, `\"shop.orders\" = \"archive.old_orders\"` for one collection, which wins. A database that is \
              not there is created. Aliases and grants follow. Two collections that would have one name are refused. They must stay \
              between runs, since everything stands under these names; `docs/catalog.md` has the rules.",
};
/// `[delivery]`
pub static DELIVERY: Table = Table {
    path: "delivery",
    variants: &[],
    required: false,
    free: None,
    meaning: "How much, how fast, how fresh. The defaults suit most pipelines.",
};

/// `[ownership]`
pub static OWNERSHIP: Table = Table {
    path: "ownership",
    variants: &[],
    required: false,
    free: None,
    meaning: "For a pipeline that is started on several hosts, of which one runs and the others stand by: which of them owns \
              the pipeline is decided in an etcd, and the checkpoint is kept there too. Without this table, the lock on \
              `state_dir` decides alone. `docs/ownership.md` has the rules.",
};
/// `[ownership.etcd_tls]`
pub static OWNERSHIP_ETCD_TLS: Table = Table {
    path: "ownership.etcd_tls",
    variants: &[],
    required: false,
    free: None,
    meaning: "TLS for the connection to this etcd, beyond what `https://` in its addresses does by itself.",
};

/// `[restart]`
pub static RESTART: Table = Table {
    path: "restart",
    variants: &[],
    required: false,
    free: None,
    meaning: "Whether a pipeline that has failed is started again. What is waited for anyhow, such as a target that does \
              not answer, is no failure.",
};
/// `[labels]`
pub static LABELS: Table = Table {
    path: "labels",
    variants: &[],
    required: false,
    free: Some("any name: any text, such as `team = \"search\"`"),
    meaning: "What the user wants to find again with the pipeline. `migrans serve` shows them.",
};
