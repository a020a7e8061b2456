//! Test support without mocks: RabbitMQ nodes (a shared one, and private ones to kill), a receiver of webhooks, a proxy
//! that cuts connections, a browser, and the product as a process or on a thread.
//!
//! Tests wait for conditions with [`wait_until`], and never sleep.
#![allow(dead_code, unused_imports, reason = "a helper may be here before the test that needs it")]

pub(crate) mod amqp;
pub(crate) mod background_server;
pub(crate) mod broker;
pub(crate) mod broker_objects;
pub(crate) mod browser;
pub(crate) mod chaos;
pub(crate) mod cli_process;
pub(crate) mod cluster;
pub(crate) mod dead_letters;
pub(crate) mod expectation;
pub(crate) mod heavy;
pub(crate) mod json;
pub(crate) mod lossy_proxy;
pub(crate) mod network;
pub(crate) mod proxy;
pub(crate) mod raw_amqp;
pub(crate) mod raw_receiver;
pub(crate) mod receiver;
pub(crate) mod reply;
pub(crate) mod tools;
pub(crate) mod unique;
pub(crate) mod wait;
pub(crate) mod waypost;
pub(crate) mod worker_thread;

pub(crate) use amqp::{Amqp, Message};
pub(crate) use broker::Broker;
pub(crate) use broker_objects::BrokerObjects;
pub(crate) use browser::Browser;
pub(crate) use cluster::Cluster;
pub(crate) use heavy::heavy;
pub(crate) use proxy::Proxy;
pub(crate) use receiver::{Answer, Receiver};
pub(crate) use unique::unique;
pub(crate) use wait::{DEFAULT_TIMEOUT, wait_until, wait_until_stable};
pub(crate) use waypost::Waypost;
