//! A sink whose names are not the source's: the one place where they are put in.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{Found, Sink, Write};
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::{Catalog, Collection, CollectionName, Ddl};
use crate::milvus::tso::Tso;
use crate::pipeline::{Names, is_permanent};

/// Tells `inner` everything by its names on the target.
pub(super) struct Named {
    inner: Arc<dyn Sink>,
    names: Names,
}

impl Named {
    pub(super) fn new(inner: Arc<dyn Sink>, names: Names) -> Named {
        Named { inner, names }
    }

    fn collection(&self, collection: &Collection) -> Collection {
        Collection { name: self.names.collection(&collection.name), ..collection.clone() }
    }

    /// Whether a step is about a database that belongs to others too, or is just there.
    fn is_not_ours(&self, ddl: &Ddl) -> bool {
        matches!(ddl, Ddl::DropDatabase { name, .. } | Ddl::SetDatabaseProperties { name, .. }
            if self.names.is_shared(name) || is_permanent(self.names.database(name)) && !is_permanent(name))
    }
}

#[async_trait]
impl Sink for Named {
    async fn write(&self, write: &Write, deadline: Duration) -> Result<()> {
        if self.names.other(&write.collection.name).is_none() {
            return self.inner.write(write, deadline).await;
        }
        let collection = Arc::new(self.collection(&write.collection));
        self.inner.write(&Write { collection, ..write.clone() }, deadline).await
    }

    async fn apply(&self, ddl: &Ddl, deadline: Duration) -> Result<()> {
        if self.is_not_ours(ddl) {
            tracing::info!("the target keeps the database, since not only this one stands in it");
            return Ok(());
        }
        let mut ddl = ddl.clone();
        self.names.put_into(&mut ddl);
        match (&ddl, self.inner.apply(&ddl, deadline).await) {
            // A database that has the name by itself may be selected too.
            (Ddl::DropDatabase { name, .. }, Err(error)) if error.kind() == Kind::Conflict => {
                tracing::info!("the target keeps the database {name}, since something is in it");
                Ok(())
            }
            (_, result) => result,
        }
    }

    async fn find(&self, name: &CollectionName) -> Result<Found> {
        self.inner.find(&self.names.collection(name)).await
    }

    async fn differences(&self, wanted: &Collection) -> Result<Vec<String>> {
        self.inner.differences(&self.collection(wanted)).await
    }

    fn objections(&self, wanted: &Catalog) -> Vec<String> {
        self.inner.objections(wanted)
    }

    fn names(&self) -> Names {
        self.names.clone()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }

    async fn resume(&self, applied: &Catalog, frontier: Option<Tso>) -> Result<()> {
        let mut applied = applied.clone();
        for collection in applied.collections.values_mut() {
            *collection = self.collection(collection);
        }
        self.inner.resume(&applied, frontier).await
    }

    fn committed(&self, frontier: Tso) {
        self.inner.committed(frontier);
    }

    fn failed(&self) -> Option<Error> {
        self.inner.failed()
    }

    async fn settle(&self, within: Duration) -> Result<()> {
        self.inner.settle(within).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::milvus::catalog::{CollectionId, Database};
    use crate::milvus::tso::Tso;

    /// Writes down which steps it was asked for.
    #[derive(Default)]
    struct Heard(Mutex<Vec<Ddl>>);

    #[async_trait]
    impl Sink for Heard {
        async fn write(&self, _: &Write, _: Duration) -> Result<()> {
            Ok(())
        }

        async fn apply(&self, ddl: &Ddl, _: Duration) -> Result<()> {
            self.0.lock().unwrap().push(ddl.clone());
            Ok(())
        }

        async fn find(&self, _: &CollectionName) -> Result<Found> {
            Ok(Found::Absent)
        }

        async fn differences(&self, wanted: &Collection) -> Result<Vec<String>> {
            Ok(vec![wanted.name.to_string()])
        }

        fn objections(&self, _: &Catalog) -> Vec<String> {
            Vec::new()
        }

        fn describe(&self) -> String {
            String::new()
        }
    }

    fn heard(names: Names, steps: &[Ddl]) -> Vec<Ddl> {
        let inner = Arc::new(Heard::default());
        let sink = Named::new(Arc::clone(&inner) as Arc<dyn Sink>, names);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for step in steps {
            runtime.block_on(sink.apply(step, Duration::from_secs(1))).unwrap();
        }
        std::mem::take(&mut *inner.0.lock().unwrap())
    }

    fn database(name: &str) -> Database {
        Database { id: 5, name: name.into(), created: Tso(1), properties: Default::default() }
    }

    #[test]
    fn steps_go_out_under_the_targets_names() {
        let names = Names::new([("shop", "archive"), ("shop.orders", "other.old")]);
        let drop = |database: &str, collection: &str| Ddl::DropCollection {
            id: CollectionId(1),
            name: CollectionName { database: database.into(), collection: collection.into() },
        };
        let steps = [
            Ddl::CreateDatabase(database("shop")),
            drop("shop", "orders"),
            drop("shop", "items"),
            drop("a", "b"),
        ];
        assert_eq!(
            heard(names, &steps),
            [
                Ddl::CreateDatabase(database("archive")),
                drop("other", "old"),
                drop("archive", "items"),
                drop("a", "b")
            ]
        );
    }

    #[test]
    fn a_database_goes_only_if_nothing_else_can_be_in_it() {
        let drop = |name: &str| Ddl::DropDatabase { id: 5, name: name.into() };
        let steps = [drop("shop"), drop("b")];
        assert_eq!(heard(Names::new([("shop", "archive")]), &steps), [drop("archive"), drop("b")]);
        assert_eq!(heard(Names::new([("shop", "default")]), &steps), [drop("b")]);
        assert_eq!(heard(Names::new([("shop", "all"), ("b", "all")]), &steps), []);
    }
}
