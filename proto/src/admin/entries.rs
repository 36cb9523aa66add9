//! Questions about groups, topics and global names, and what can be done with them from outside.
//!
//! All lists are as the asked node sees them, at most
//! [`PAGE_ENTRIES`](crate::limits::PAGE_ENTRIES) a page; `after` asks for what comes next.

use serde::{Deserialize, Serialize};

use crate::fence::Fence;
use crate::group::Group;
use crate::id::Pid;
use crate::message::Message;
use crate::name::{Name, NodeName};

/// Which groups have members?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListGroups {
    /// Only those behind this one, by scope and name.
    pub after: Option<Group>,
}
message!(ListGroups, "node.groups", Vec<GroupInfo>);

/// One group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupInfo {
    /// Its scope.
    pub scope: Name,
    /// Its name in it.
    pub name: Name,
    /// How many processes are in it.
    pub members: usize,
    /// The nodes that they run on.
    pub nodes: Vec<NodeName>,
}

/// Who is in this group?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListGroupMembers {
    /// The group.
    pub group: Group,
    /// Only those with a larger pid.
    pub after: Option<Pid>,
}
message!(ListGroupMembers, "node.group-members", Vec<GroupMemberInfo>);

/// One member of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupMemberInfo {
    /// The process.
    pub pid: Pid,
    /// The node it runs on.
    pub node: NodeName,
    /// How often it has joined.
    pub joined: u32,
}

/// Put a process of the asked node into a group; an error says why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinGroup {
    /// The group.
    pub group: Group,
    /// The process.
    pub pid: Pid,
}
message!(JoinGroup, "node.group-join", Result<(), String>);

/// Take a process of the asked node out of a group, once; `false` if it is not in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaveGroup {
    /// The group.
    pub group: Group,
    /// The process.
    pub pid: Pid,
}
message!(LeaveGroup, "node.group-leave", bool);

/// Which topics are subscribed to?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListTopics {
    /// Only those behind this one, by name.
    pub after: Option<Name>,
}
message!(ListTopics, "node.topics", Vec<TopicInfo>);

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicInfo {
    /// Its name.
    pub topic: Name,
    /// How many subscribers it has on the asked node.
    pub subscribers: usize,
    /// The other nodes that have subscribers.
    pub nodes: Vec<NodeName>,
}

/// Have a process of the asked node get what is published to a topic; an error says why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SubscribeTopic {
    /// The topic.
    pub topic: Name,
    /// The process.
    pub pid: Pid,
}
message!(SubscribeTopic, "node.topic-subscribe", Result<(), String>);

/// End a subscription of a process of the asked node; `false` if there is none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UnsubscribeTopic {
    /// The topic.
    pub topic: Name,
    /// The process.
    pub pid: Pid,
}
message!(UnsubscribeTopic, "node.topic-unsubscribe", bool);

/// Which global names are held?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ListGlobalNames {
    /// Only those behind this one.
    pub after: Option<Name>,
}
message!(ListGlobalNames, "node.global-names", Vec<GlobalNameInfo>);

/// One global name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalNameInfo {
    /// The name.
    pub name: Name,
    /// The process that has it.
    pub pid: Pid,
    /// The node it runs on.
    pub node: NodeName,
    /// Since when, in milliseconds since 1970 by that node's clock.
    pub since_ms: u64,
    /// Its token, if the name is of the exclusive kind.
    pub fence: Option<Fence>,
}

/// Which process has this global name?
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WhereIsGlobal {
    /// The name.
    pub name: Name,
}
message!(WhereIsGlobal, "node.global-whereis", Option<Pid>);

/// Give a process of the asked node a global name of the available kind; an error says why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterGlobal {
    /// The name.
    pub name: Name,
    /// The process.
    pub pid: Pid,
}
message!(RegisterGlobal, "node.global-register", Result<(), String>);

/// Give a process of the asked node a global name of the exclusive kind; an error says why not.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TakeGlobal {
    /// The name.
    pub name: Name,
    /// The process.
    pub pid: Pid,
}
message!(TakeGlobal, "node.global-take", Result<Fence, String>);
