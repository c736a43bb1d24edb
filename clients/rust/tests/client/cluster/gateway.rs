//! The gateway's answers: the map, and topics.

use bytes::Bytes;
use minikafka_client::core::topic::{TopicConfig, TopicState};
use minikafka_client::core::wire::{
    AlterTopicRequest, Api, CreateTopicRequest, DeleteTopicRequest, ErrorReply, ResolveReply, ResolveRequest,
    TopicDescription, Wire,
};
use minikafka_client::core::{ClusterId, ErrorCode, TopicId};

use super::server::Answer;
use super::{RING, Shared, State};

pub fn answer(shared: &Shared, api: Api, head: &Bytes) -> Answer {
    let state = &mut *shared.state.lock().expect("not poisoned");
    match api {
        Api::Resolve => resolve(shared, state, head),
        Api::CreateTopic => create(state, head),
        Api::DeleteTopic => delete(state, head),
        Api::AlterTopic => alter(state, head),
        _ => Answer::refusal(ErrorCode::Misdirected, ErrorReply::of(ErrorCode::Misdirected)),
    }
}

fn resolve(shared: &Shared, state: &mut State, head: &Bytes) -> Answer {
    let request = ResolveRequest::from_bytes(head).expect("a good request");
    if request.create_missing {
        for name in &request.topics {
            if name.starts_with("auto") && !state.topics.contains_key(name) {
                state.create_topic(name, 2, TopicConfig::default());
            }
        }
    }
    let topics = match request.all_topics {
        true => state.topics.values().cloned().collect(),
        false => request.topics.iter().map(|name| describe(state, name)).collect(),
    };
    let (nodes, rings) = if request.with_rings { (shared.nodes(), vec![state.ring()]) } else { Default::default() };
    Answer::message(&ResolveReply { cluster: ClusterId(77), internal_ring: RING, nodes, rings, topics })
}

fn describe(state: &State, name: &str) -> TopicDescription {
    let unknown = || TopicDescription {
        name: name.to_owned(),
        error: Some(ErrorCode::UnknownTopic),
        topic: TopicId(0),
        partitions: 0,
        ring: RING,
        state: TopicState::Creating,
        config: TopicConfig::default(),
        placement: Vec::new(),
    };
    state.topics.get(name).cloned().unwrap_or_else(unknown)
}

fn create(state: &mut State, head: &Bytes) -> Answer {
    let request = CreateTopicRequest::from_bytes(head).expect("a good request");
    if state.topics.contains_key(&request.name) {
        return Answer::refusal(ErrorCode::TopicExists, ErrorReply::of(ErrorCode::TopicExists));
    }
    Answer::message(&state.create_topic(&request.name, request.partitions.max(1), request.config))
}

fn alter(state: &mut State, head: &Bytes) -> Answer {
    let request = AlterTopicRequest::from_bytes(head).expect("a good request");
    match state.topics.get_mut(&request.name) {
        Some(topic) => {
            topic.config = request.change.applied_to(&topic.config);
            Answer::message(topic)
        }
        None => Answer::refusal(ErrorCode::UnknownTopic, ErrorReply::of(ErrorCode::UnknownTopic)),
    }
}

fn delete(state: &mut State, head: &Bytes) -> Answer {
    let request = DeleteTopicRequest::from_bytes(head).expect("a good request");
    match state.topics.remove(&request.name) {
        Some(_) => Answer { error: None, head: Vec::new(), bulk: Vec::new() },
        None => Answer::refusal(ErrorCode::UnknownTopic, ErrorReply::of(ErrorCode::UnknownTopic)),
    }
}
