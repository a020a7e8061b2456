//! `waypost contract`: what others build against, without a server.

use clap::{Args, ValueEnum};

use super::output::say;
use crate::contract;

#[derive(Args)]
pub(super) struct Contract {
    /// Which of them
    #[arg(value_enum)]
    what: What,
}

#[derive(ValueEnum, Clone, Copy)]
enum What {
    /// The JSON Schema of a step event
    Event,
    /// The JSON Schema of a campaign document
    Campaign,
    /// The AsyncAPI description of the exchange that takes events
    Asyncapi,
}

impl Contract {
    pub(super) fn run(self) {
        let document = match self.what {
            What::Event => contract::event(),
            What::Campaign => contract::campaign(),
            What::Asyncapi => contract::asyncapi(),
        };
        say!("{document:#}");
    }
}
