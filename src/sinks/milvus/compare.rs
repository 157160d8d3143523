//! A collection as this sink creates it, and how others differ from that.

use std::collections::BTreeMap;

use prost::Message as _;

use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Catalog, Collection, Field};
use crate::milvus::proto::common::KeyValuePair;
use crate::milvus::proto::milvus::DescribeCollectionResponse;
use crate::milvus::proto::schema::{CollectionSchema, DataType, FieldSchema, ValueField};
use crate::pipeline::TargetMode;
use crate::proxy::Version;

/// The type parameters that decide which values a field takes. Others (`mmap.enabled`, …) are about its storage.
const LIMITS: [&str; 3] = ["dim", "max_length", "max_capacity"];

/// The schema to create `collection` with. Its key is a plain one, also where the source makes it up itself: rows
/// come with the source's keys. Only a standby gets a key like the source's, since messages bring it along. `$meta` is not
/// listed but asked for by `enable_dynamic_field`.
///
/// # Errors
/// `Corrupt` if a default value can't be read.
pub(super) fn schema(collection: &Collection, mode: TargetMode) -> Result<CollectionSchema> {
    let fields = collection.schema.fields.iter().filter(|field| !field.dynamic);
    let fields = fields
        .map(|field| field_schema(field, mode).map_err(|error| error.context(&collection.name)))
        .collect::<Result<Vec<_>>>()?;
    Ok(CollectionSchema {
        auto_id: fields.iter().any(|field| field.auto_id),
        name: collection.name.collection.clone(),
        description: collection.schema.description.clone(),
        fields,
        enable_dynamic_field: collection.schema.dynamic,
        ..Default::default()
    })
}

fn field_schema(field: &Field, mode: TargetMode) -> Result<FieldSchema> {
    let default_value = match &field.default_value {
        Some(bytes) => Some(ValueField::decode(&**bytes).map_err(|error| {
            let message = format!("the default value of field `{}` can't be read", field.name);
            Error::new(Kind::Corrupt, message).caused_by(error)
        })?),
        None => None,
    };
    Ok(FieldSchema {
        field_id: field.id,
        name: field.name.clone(),
        is_primary_key: field.primary_key,
        auto_id: field.auto_id && mode == TargetMode::Replicate,
        description: field.description.clone(),
        data_type: field.data_type,
        type_params: pairs(&field.type_params),
        element_type: field.element_type,
        default_value,
        is_partition_key: field.partition_key,
        nullable: field.nullable,
        is_function_output: field.function_output,
        ..Default::default()
    })
}

/// A collection's properties that are worth setting on another cluster. Those of Milvus' own replication belong
/// to one cluster.
pub(super) fn properties(properties: &BTreeMap<String, String>) -> Vec<KeyValuePair> {
    let kept = properties.iter().filter(|(key, _)| !key.starts_with("replicate."));
    kept.map(|(key, value)| KeyValuePair { key: key.clone(), value: value.clone() }).collect()
}

/// Key-value pairs as Milvus' messages have them.
pub(super) fn pairs(map: &BTreeMap<String, String>) -> Vec<KeyValuePair> {
    map.iter().map(|(key, value)| KeyValuePair { key: key.clone(), value: value.clone() }).collect()
}

/// How what stands on the target differs from `wanted`, each difference in words; none if rows fit.
pub(crate) fn differences(
    wanted: &Collection,
    described: &DescribeCollectionResponse,
    mode: TargetMode,
) -> Vec<String> {
    let mut out = Vec::new();
    let empty = CollectionSchema::default();
    let found = described.schema.as_ref().unwrap_or(&empty);
    if found.enable_dynamic_field != wanted.schema.dynamic {
        out.push(match found.enable_dynamic_field {
            true => "it has dynamic fields, the source has not".into(),
            false => "it has no dynamic fields, the source has".to_owned(),
        });
    }
    if described.shards_num != wanted.shards {
        out.push(format!("it has {} shards, the source has {}", described.shards_num, wanted.shards));
    }
    for field in wanted.schema.fields.iter().filter(|field| !field.dynamic) {
        match found.fields.iter().find(|found| found.name == field.name) {
            Some(found) => field_differences(field, found, mode, &mut out),
            None => out.push(format!("it has no field `{}`", field.name)),
        }
    }
    for field in found.fields.iter().filter(|field| !field.is_dynamic) {
        let optional = field.nullable || field.default_value.is_some();
        if !optional && !wanted.schema.fields.iter().any(|wanted| wanted.name == field.name) {
            out.push(format!("its field `{}` is not in the source", field.name));
        }
    }
    out
}

fn field_differences(wanted: &Field, found: &FieldSchema, mode: TargetMode, out: &mut Vec<String>) {
    let name = &wanted.name;
    if mode == TargetMode::Replicate && found.field_id != wanted.id {
        out.push(format!("its field `{name}` has the id {}, the source's has {}", found.field_id, wanted.id));
    }
    if found.data_type != wanted.data_type {
        let (found, wanted) = (type_name(found.data_type), type_name(wanted.data_type));
        out.push(format!("its field `{name}` is {found}, the source's is {wanted}"));
        return;
    }
    if found.element_type != wanted.element_type {
        let (found, wanted) = (type_name(found.element_type), type_name(wanted.element_type));
        out.push(format!("its field `{name}` is an array of {found}, the source's of {wanted}"));
    }
    for key in LIMITS {
        let value = |found: Option<&String>| found.map_or("none".to_owned(), Clone::clone);
        let found = value(found.type_params.iter().find(|pair| pair.key == key).map(|pair| &pair.value));
        let wanted = value(wanted.type_params.get(key));
        if found != wanted {
            out.push(format!("its field `{name}` has {key} {found}, the source's has {wanted}"));
        }
    }
    let mut flag = |found: bool, wanted: bool, what: &str| {
        if found != wanted {
            let (is, other) = if found { ("is", "is not") } else { ("is not", "is") };
            out.push(format!("its field `{name}` {is} {what}, the source's {other}"));
        }
    };
    flag(found.is_primary_key, wanted.primary_key, "the primary key");
    flag(found.is_partition_key, wanted.partition_key, "the partition key");
    flag(found.nullable, wanted.nullable, "nullable");
    flag(found.is_function_output, wanted.function_output, "computed by a function");
    if mode == TargetMode::Replicate {
        flag(found.auto_id, wanted.auto_id, "made up by the server (autoID)");
    } else if found.auto_id {
        out.push(format!(
            "its key `{name}` is made up by the server (autoID), so it can't take the source's keys"
        ));
    }
}

/// Why a server of this version can't hold these objects, each reason in words.
pub(super) fn objections(wanted: &Catalog, version: &Version) -> Vec<String> {
    let mut out = Vec::new();
    for database in wanted.databases.values() {
        if !database.properties.is_empty() && !version.is_at_least(2, 4, 0) {
            out.push(format!(
                "database {} has properties, which Milvus {version} does not know",
                database.name
            ));
        }
    }
    if wanted.access.as_ref().is_some_and(|access| !access.groups.is_empty()) && !version.is_at_least(2, 5, 0)
    {
        out.push(format!(
            "the source has privilege groups ([catalog] rbac), which need Milvus 2.5, and the target is {version}"
        ));
    }
    for collection in wanted.collections.values() {
        let name = &collection.name;
        if collection.schema.primary_key().is_none() {
            out.push(format!("collection {name} has no primary key"));
        }
        let fields = &collection.schema.fields;
        let vectors: Vec<_> =
            fields.iter().filter(|field| field.data_type >= DataType::BinaryVector as i32).collect();
        if vectors.len() > 1 && !version.is_at_least(2, 4, 0) {
            let count = vectors.len();
            out.push(format!("collection {name} has {count} vector fields, Milvus {version} can hold one"));
        }
        for field in fields {
            let mut object =
                |why: String| out.push(format!("collection {name}: field `{}` {why}", field.name));
            match field.data_type() {
                None | Some(DataType::None) => {
                    object(format!("has a type that is not known ({})", field.data_type))
                }
                Some(data_type) => {
                    let (major, minor, patch) = Version::needed_for(data_type);
                    if !version.is_at_least(major, minor, patch) {
                        object(format!(
                            "is {data_type:?}, which needs Milvus {major}.{minor}.{patch}, and the target is {version}"
                        ));
                    }
                }
            }
            if (field.nullable || field.default_value.is_some()) && !version.is_at_least(2, 5, 0) {
                object(format!(
                    "is nullable or has a default, which needs Milvus 2.5, and the target is {version}"
                ));
            }
            if field.function_output {
                object("is computed by a function, which is not supported yet".into());
            }
        }
    }
    out
}

fn type_name(data_type: i32) -> String {
    match DataType::try_from(data_type) {
        Ok(known) => format!("{known:?}"),
        Err(_) => format!("of type {data_type}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::milvus::access::Access;
    use crate::milvus::catalog::{CollectionId, CollectionName, Database, Schema};
    use crate::milvus::tso::Tso;

    fn field(name: &str, data_type: DataType) -> Field {
        Field {
            id: 100,
            name: name.into(),
            description: format!("about {name}"),
            data_type: data_type as i32,
            ..Field::default()
        }
    }

    fn wanted() -> Collection {
        let key = Field { primary_key: true, auto_id: true, ..field("id", DataType::Int64) };
        let vector = Field {
            id: 101,
            type_params: BTreeMap::from([("dim".into(), "8".into())]),
            ..field("v", DataType::FloatVector)
        };
        let meta = Field { id: 102, dynamic: true, ..field("$meta", DataType::Json) };
        Collection {
            id: CollectionId(1),
            name: CollectionName { database: "default".into(), collection: "c".into() },
            created: Tso(1),
            schema: Schema { description: "words".into(), dynamic: true, fields: vec![key, vector, meta] },
            shards: 2,
            consistency_level: 2,
            properties: BTreeMap::new(),
            vchannels: vec![],
            start_positions: BTreeMap::new(),
            partitions: BTreeMap::new(),
            indexes: BTreeMap::new(),
            load: None,
        }
    }

    fn described(wanted: &Collection) -> DescribeCollectionResponse {
        DescribeCollectionResponse {
            schema: Some(schema(wanted, TargetMode::Write).unwrap()),
            shards_num: wanted.shards,
            ..Default::default()
        }
    }

    #[test]
    fn what_this_sink_creates_has_no_differences_and_takes_given_keys() {
        let wanted = wanted();
        let schema = schema(&wanted, TargetMode::Write).unwrap();
        assert_eq!(schema.fields.len(), 2);
        assert!(schema.enable_dynamic_field && !schema.auto_id && !schema.fields[0].auto_id);
        assert_eq!(schema.description, "words");
        assert_eq!(schema.fields[1].description, "about v");
        assert_eq!(differences(&wanted, &described(&wanted), TargetMode::Write), Vec::<String>::new());
    }

    #[test]
    fn a_standby_makes_up_keys_as_the_source_does_and_has_its_field_ids() {
        let wanted = wanted();
        let mut found = described(&wanted);
        assert_eq!(
            differences(&wanted, &found, TargetMode::Replicate),
            ["its field `id` is not made up by the server (autoID), the source's is"]
        );
        let schema = schema(&wanted, TargetMode::Replicate).unwrap();
        assert!(schema.auto_id && schema.fields[0].auto_id);
        found.schema = Some(schema);
        assert_eq!(differences(&wanted, &found, TargetMode::Replicate), Vec::<String>::new());
        found.schema.as_mut().unwrap().fields[1].field_id = 105;
        assert_eq!(
            differences(&wanted, &found, TargetMode::Replicate),
            ["its field `v` has the id 105, the source's has 101"]
        );
    }

    #[test]
    fn each_difference_is_told() {
        let wanted = wanted();
        let mut found = described(&wanted);
        found.shards_num = 1;
        let schema = found.schema.as_mut().unwrap();
        schema.enable_dynamic_field = false;
        schema.fields[0].auto_id = true;
        schema.fields[1].type_params[0].value = "16".into();
        schema.fields.push(FieldSchema { name: "more".into(), data_type: 5, ..Default::default() });
        assert_eq!(
            differences(&wanted, &found, TargetMode::Write),
            [
                "it has no dynamic fields, the source has",
                "it has 1 shards, the source has 2",
                "its key `id` is made up by the server (autoID), so it can't take the source's keys",
                "its field `v` has dim 16, the source's has 8",
                "its field `more` is not in the source",
            ]
        );
        let schema = found.schema.as_mut().unwrap();
        schema.fields.remove(1);
        schema.fields[0].data_type = DataType::VarChar as i32;
        let told = differences(&wanted, &found, TargetMode::Write);
        assert!(told.contains(&"its field `id` is VarChar, the source's is Int64".into()), "{told:?}");
        assert!(told.contains(&"it has no field `v`".into()), "{told:?}");
    }

    #[test]
    fn what_a_version_can_not_hold_is_objected_to() {
        let old = Version::parse("v2.3.5").unwrap();
        let new = Version::parse("v2.5.1").unwrap();
        let mut catalog = Catalog::default();
        catalog.collections.insert(CollectionId(1), wanted());
        assert_eq!(objections(&catalog, &old), Vec::<String>::new());

        let mut other = wanted();
        other.schema.fields.push(field("w", DataType::SparseFloatVector));
        other.schema.fields.push(Field { nullable: true, ..field("n", DataType::Int64) });
        catalog.collections.insert(CollectionId(2), other);
        let properties = BTreeMap::from([("a".into(), "b".into())]);
        catalog.databases.insert(2, Database { id: 2, name: "d".into(), created: Tso(1), properties });
        let groups = BTreeMap::from([("g".to_owned(), ["Query".to_owned()].into())]);
        catalog.access = Some(Access { groups, ..Access::default() });
        assert_eq!(
            objections(&catalog, &old),
            [
                "database d has properties, which Milvus v2.3.5 does not know",
                "the source has privilege groups ([catalog] rbac), which need Milvus 2.5, and the target is v2.3.5",
                "collection default.c has 2 vector fields, Milvus v2.3.5 can hold one",
                "collection default.c: field `w` is SparseFloatVector, which needs Milvus 2.4.0, and the target is v2.3.5",
                "collection default.c: field `n` is nullable or has a default, which needs Milvus 2.5, and the target is v2.3.5",
            ]
        );
        assert_eq!(objections(&catalog, &new), Vec::<String>::new());
    }

    #[test]
    fn properties_of_milvus_own_replication_stay_behind() {
        let all = BTreeMap::from([
            ("collection.ttl.seconds".to_owned(), "60".to_owned()),
            ("replicate.id".to_owned(), "x".to_owned()),
        ]);
        let kept: Vec<_> = properties(&all).into_iter().map(|pair| pair.key).collect();
        assert_eq!(kept, ["collection.ttl.seconds"]);
    }
}
