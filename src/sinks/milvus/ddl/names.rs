//! Other names of a collection: renaming it, and aliases.

use super::Steps;
use crate::error::{Error, Kind, Result};
use crate::milvus::catalog::CollectionName;
use crate::milvus::proto::milvus as pb;
use crate::proxy::request;

impl Steps<'_> {
    pub(super) async fn rename(&self, from: &CollectionName, to: &CollectionName) -> Result<()> {
        let (is_old_there, is_new_there) = (self.stands(from).await?, self.stands(to).await?);
        match (is_old_there, is_new_there) {
            (false, true) => return Ok(()),
            (true, true) => {
                let message =
                    format!("{from} can't become {to} at {}: that name is taken", self.client.uri());
                return Err(Error::new(Kind::Conflict, message).hint(
                    "drop or rename what stands there, or give the collection another name in [target.names]",
                ));
            }
            (false, false) => {
                let message = format!("collection {from} is not there at {}", self.client.uri());
                return Err(Error::new(Kind::NotFound, message));
            }
            (true, false) => {}
        }
        let other_database = if from.database == to.database { "" } else { &to.database };
        if !other_database.is_empty() {
            self.create_database_by_name(other_database).await?;
        }
        let message = pb::RenameCollectionRequest {
            db_name: from.database.clone(),
            old_name: from.collection.clone(),
            new_name: to.collection.clone(),
            new_db_name: other_database.to_owned(),
            ..Default::default()
        };
        let what = format!("renaming collection {from} to {to}");
        let mut rpc = self.client.rpc();
        let call = rpc.rename_collection(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, || async { Ok(self.stands(to).await? && !self.stands(from).await?) }).await
    }

    /// `from`: the collection that the alias stands for so far, if it is ours.
    pub(super) async fn set_alias(
        &self,
        alias: &CollectionName,
        of: &CollectionName,
        from: Option<&CollectionName>,
    ) -> Result<()> {
        let what = format!("letting the alias {alias} stand for {of}");
        let mut rpc = self.client.rpc();
        match self.meant_by(alias).await? {
            Some(meant) if meant == of.collection && meant != alias.collection => return Ok(()),
            Some(meant) if from.is_some() && meant != alias.collection => {
                let message = pb::AlterAliasRequest {
                    db_name: alias.database.clone(),
                    collection_name: of.collection.clone(),
                    alias: alias.collection.clone(),
                    ..Default::default()
                };
                let call = rpc.alter_alias(request(message, self.deadline));
                self.client.change(&what, call, self.deadline).await?;
            }
            Some(meant) => {
                let stands = match meant == alias.collection {
                    true => "a collection".to_owned(),
                    false => format!("an alias of {meant}"),
                };
                let message =
                    format!("{alias} can't become an alias of {of} at {}: it is {stands}", self.client.uri());
                return Err(Error::new(Kind::Conflict, message)
                    .hint("drop what stands under that name on the target, or the alias at the source"));
            }
            None => {
                let message = pb::CreateAliasRequest {
                    db_name: alias.database.clone(),
                    collection_name: of.collection.clone(),
                    alias: alias.collection.clone(),
                    ..Default::default()
                };
                let call = rpc.create_alias(request(message, self.deadline));
                self.client.change(&what, call, self.deadline).await?;
            }
        }
        self.until(&what, || async { Ok(self.meant_by(alias).await?.as_ref() == Some(&of.collection)) }).await
    }

    pub(super) async fn drop_alias(&self, alias: &CollectionName) -> Result<()> {
        match self.meant_by(alias).await? {
            Some(meant) if meant != alias.collection => {}
            // Nothing, or a collection that has taken the name.
            _ => return Ok(()),
        }
        let message = pb::DropAliasRequest {
            db_name: alias.database.clone(),
            alias: alias.collection.clone(),
            ..Default::default()
        };
        let what = format!("dropping the alias {alias}");
        let mut rpc = self.client.rpc();
        let call = rpc.drop_alias(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, || async { Ok(self.meant_by(alias).await?.is_none()) }).await
    }

    /// Whether a collection stands under this name, which is no alias.
    async fn stands(&self, name: &CollectionName) -> Result<bool> {
        Ok(self.meant_by(name).await?.as_ref() == Some(&name.collection))
    }

    /// The name of the collection that `name` stands for: its own, or that of the one that it is an alias of.
    async fn meant_by(&self, name: &CollectionName) -> Result<Option<String>> {
        let described = self.client.describe(name).await?;
        Ok(described.map(|described| match described.schema {
            // `collection_name` is what was asked for (2.3.5).
            Some(schema) if !schema.name.is_empty() => schema.name,
            _ => described.collection_name,
        }))
    }
}
