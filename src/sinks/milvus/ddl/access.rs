//! Who may do what: roles, grants, the roles of users, groups of privileges.
//!
//! Users are never made here: the source keeps only hashes of passwords, and a made-up one would be a hole.

use std::collections::BTreeSet;

use super::Steps;
use crate::error::{Error, Kind, Result};
use crate::milvus::access::{AccessStep, Grant};
use crate::milvus::proto::milvus as pb;
use crate::proxy::request;

/// `OperateUserRoleType`, `OperatePrivilegeType` and `OperatePrivilegeGroupType` all begin with what adds.
const ADD: i32 = 0;
const REMOVE: i32 = 1;

impl Steps<'_> {
    pub(super) async fn access(&self, step: &AccessStep) -> Result<()> {
        match step {
            AccessStep::ExpectUsers(users) => self.expect_users(users).await,
            AccessStep::CreateRole(role) => self.create_role(role).await,
            AccessStep::DropRole(role) => self.drop_role(role).await,
            AccessStep::Bind(user, role) => self.bind(user, role, true).await,
            AccessStep::Unbind(user, role) => self.bind(user, role, false).await,
            AccessStep::Grant(grant) => self.grant(grant, true).await,
            AccessStep::Revoke(grant) => self.grant(grant, false).await,
            AccessStep::CreateGroup(group) => self.create_group(group).await,
            AccessStep::DropGroup(group) => self.drop_group(group).await,
            AccessStep::ChangeGroup(group, new, old) => {
                self.change_group(group, new, ADD).await?;
                self.change_group(group, old, REMOVE).await
            }
        }
    }

    async fn create_role(&self, role: &str) -> Result<()> {
        if self.roles().await?.iter().any(|(name, _)| name == role) {
            return Ok(());
        }
        let message = pb::CreateRoleRequest {
            entity: Some(pb::RoleEntity { name: role.to_owned() }),
            ..Default::default()
        };
        let what = format!("creating role {role}");
        let mut rpc = self.client.rpc();
        let call = rpc.create_role(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, || async { Ok(self.roles().await?.iter().any(|(name, _)| name == role)) }).await
    }

    async fn drop_role(&self, role: &str) -> Result<()> {
        if !self.roles().await?.iter().any(|(name, _)| name == role) {
            return Ok(());
        }
        let message = pb::DropRoleRequest { role_name: role.to_owned(), ..Default::default() };
        let what = format!("dropping role {role}");
        let mut rpc = self.client.rpc();
        let call = rpc.drop_role(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, || async { Ok(!self.roles().await?.iter().any(|(name, _)| name == role)) }).await
    }

    async fn expect_users(&self, wanted: &BTreeSet<String>) -> Result<()> {
        let there = self.users().await?;
        let missing: Vec<&str> =
            wanted.iter().filter(|user| !there.contains(user)).map(String::as_str).collect();
        if !missing.is_empty() {
            tracing::warn!(
                "{} user(s) of the source are not on the target and have to be created there by hand, since the source keeps \
                 only hashes of their passwords: {}; they get their roles when the pipeline is started the next time",
                missing.len(),
                missing.join(", ")
            );
        }
        Ok(())
    }

    /// A user that is not there gets nothing: it was told, and somebody has to create it.
    async fn bind(&self, user: &str, role: &str, has: bool) -> Result<()> {
        if !self.users().await?.iter().any(|name| name == user) {
            return Ok(());
        }
        let is_so = || async {
            let roles = self.roles().await?;
            let of = roles.iter().find(|(name, _)| name == role);
            Ok(of.is_some_and(|(_, users)| users.iter().any(|name| name == user)) == has)
        };
        if is_so().await? {
            return Ok(());
        }
        let message = pb::OperateUserRoleRequest {
            username: user.to_owned(),
            role_name: role.to_owned(),
            r#type: if has { ADD } else { REMOVE },
            ..Default::default()
        };
        let what = match has {
            true => format!("giving user {user} the role {role}"),
            false => format!("taking the role {role} from user {user}"),
        };
        let mut rpc = self.client.rpc();
        let call = rpc.operate_user_role(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, is_so).await
    }

    async fn grant(&self, grant: &Grant, has: bool) -> Result<()> {
        let is_so = || async { Ok(self.has_grant(grant).await? == has) };
        if is_so().await? {
            return Ok(());
        }
        let message = pb::OperatePrivilegeRequest {
            entity: Some(entity(grant)),
            r#type: if has { ADD } else { REMOVE },
            ..Default::default()
        };
        let what = if has { format!("granting {grant}") } else { format!("revoking {grant}") };
        let mut rpc = self.client.rpc();
        let call = rpc.operate_privilege(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, is_so).await
    }

    async fn has_grant(&self, grant: &Grant) -> Result<bool> {
        if !self.roles().await?.iter().any(|(name, _)| *name == grant.role) {
            return Ok(false);
        }
        let wanted = entity(grant);
        let asked = pb::GrantEntity {
            role: wanted.role.clone(),
            db_name: wanted.db_name.clone(),
            ..Default::default()
        };
        let message = pb::SelectGrantRequest { entity: Some(asked), ..Default::default() };
        let what = format!("asking for the grants of role {}", grant.role);
        let mut rpc = self.client.rpc();
        let found = self.client.call(&what, rpc.select_grant(request(message, self.deadline))).await?;
        let privilege = |entity: &pb::GrantEntity| {
            entity
                .grantor
                .as_ref()
                .and_then(|grantor| grantor.privilege.as_ref())
                .map(|found| found.name.clone())
        };
        Ok(found.entities.iter().any(|entity| {
            entity.object == wanted.object
                && entity.object_name == wanted.object_name
                && privilege(entity).as_deref() == Some(&grant.privilege)
        }))
    }

    /// All roles, each with the users that have it.
    async fn roles(&self) -> Result<Vec<(String, Vec<String>)>> {
        let message = pb::SelectRoleRequest { include_user_info: true, ..Default::default() };
        let mut rpc = self.client.rpc();
        let call = rpc.select_role(request(message, self.deadline));
        let found = self.client.call("listing roles", call).await?;
        let roles = found.results.into_iter().map(|result| {
            let users = result.users.into_iter().map(|user| user.name).collect();
            (result.role.unwrap_or_default().name, users)
        });
        Ok(roles.collect())
    }

    async fn users(&self) -> Result<Vec<String>> {
        let mut rpc = self.client.rpc();
        let call = rpc.list_cred_users(request(pb::ListCredUsersRequest::default(), self.deadline));
        Ok(self.client.call("listing users", call).await?.usernames)
    }

    async fn groups(&self) -> Result<Vec<(String, BTreeSet<String>)>> {
        if !self.client.version().is_at_least(2, 5, 0) {
            let message = format!("the target at {} has no privilege groups", self.client.uri());
            return Err(Error::new(Kind::Refused, message)
                .hint("they need Milvus 2.5: set rbac = false in [catalog], or update the target"));
        }
        let mut rpc = self.client.rpc();
        let call =
            rpc.list_privilege_groups(request(pb::ListPrivilegeGroupsRequest::default(), self.deadline));
        let found = self.client.call("listing privilege groups", call).await?;
        let groups = found.privilege_groups.into_iter().map(|group| {
            (group.group_name, group.privileges.into_iter().map(|privilege| privilege.name).collect())
        });
        Ok(groups.collect())
    }

    async fn create_group(&self, group: &str) -> Result<()> {
        if self.groups().await?.iter().any(|(name, _)| name == group) {
            return Ok(());
        }
        let message = pb::CreatePrivilegeGroupRequest { group_name: group.to_owned(), ..Default::default() };
        let what = format!("creating privilege group {group}");
        let mut rpc = self.client.rpc();
        let call = rpc.create_privilege_group(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, || async { Ok(self.groups().await?.iter().any(|(name, _)| name == group)) }).await
    }

    async fn drop_group(&self, group: &str) -> Result<()> {
        if !self.groups().await?.iter().any(|(name, _)| name == group) {
            return Ok(());
        }
        let message = pb::DropPrivilegeGroupRequest { group_name: group.to_owned(), ..Default::default() };
        let what = format!("dropping privilege group {group}");
        let mut rpc = self.client.rpc();
        let call = rpc.drop_privilege_group(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, || async { Ok(!self.groups().await?.iter().any(|(name, _)| name == group)) }).await
    }

    /// Adds what is not in the group yet, or removes what still is.
    async fn change_group(&self, group: &str, privileges: &BTreeSet<String>, how: i32) -> Result<()> {
        let left = async || -> Result<Vec<String>> {
            let groups = self.groups().await?;
            let there = groups.iter().find(|(name, _)| name == group).map(|(_, there)| there);
            let is_there = |privilege: &&String| there.is_some_and(|there| there.contains(*privilege));
            let left = privileges.iter().filter(|privilege| is_there(privilege) != (how == ADD));
            Ok(left.cloned().collect())
        };
        let missing = left().await?;
        if missing.is_empty() {
            return Ok(());
        }
        let message = pb::OperatePrivilegeGroupRequest {
            group_name: group.to_owned(),
            privileges: missing.into_iter().map(|name| pb::PrivilegeEntity { name }).collect(),
            r#type: how,
            ..Default::default()
        };
        let what = format!("changing privilege group {group}");
        let mut rpc = self.client.rpc();
        let call = rpc.operate_privilege_group(request(message, self.deadline));
        self.client.change(&what, call, self.deadline).await?;
        self.until(&what, || async { Ok(left().await?.is_empty()) }).await
    }
}

fn entity(grant: &Grant) -> pb::GrantEntity {
    pb::GrantEntity {
        role: Some(pb::RoleEntity { name: grant.role.clone() }),
        object: Some(pb::ObjectEntity { name: grant.object.clone() }),
        object_name: grant.name.clone(),
        grantor: Some(pb::GrantorEntity {
            // The one that is logged in.
            user: None,
            privilege: Some(pb::PrivilegeEntity { name: grant.privilege.clone() }),
        }),
        db_name: grant.database.clone(),
    }
}
