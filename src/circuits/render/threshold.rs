//! The part of a circuit that matters, for drawings.

use std::collections::HashSet;

use super::color::{Importance, Widths};
use crate::circuits::Node;
use crate::circuits::file::{Circuit, NodeEntry};
use crate::{Error, Result};

impl Circuit {
    /// The circuit without nodes and edges whose ablation changes the task loss by less than
    /// `least`, in nats; edges of a node go with it. Its losses and [`Circuit::counts`] stay those of
    /// the whole circuit, so that drawings can say how much they leave out; as a file it would not be
    /// valid.
    ///
    /// # Errors
    /// Returns [`Error::Request`] if `least` is not a finite number from 0 on, if no ablation was
    /// measured, or if nothing would be left.
    pub fn above_threshold(&self, least: f64) -> Result<Self> {
        if !(least.is_finite() && least >= 0.0) {
            return Err(Error::Request(format!("a threshold of {least} nats: it must be a number from 0 on")));
        }
        let (importance, widths) = (Importance::new(self), Widths::new(self));
        if importance.largest == 0.0 && !widths.by_effect {
            let message = "the effects of the circuit's nodes and edges were not measured: leave --threshold out";
            return Err(Error::Request(message.into()));
        }
        let mut circuit = self.clone();
        if importance.largest > 0.0 {
            circuit.nodes.retain(|entry| entry.ablation_delta.abs() >= least);
        }
        if circuit.nodes.is_empty() && !self.nodes.is_empty() {
            let message = format!("no node changes the task loss by {least} nats: the most is {}", importance.largest);
            return Err(Error::Request(message));
        }
        let kept: HashSet<_> = circuit.nodes.iter().map(NodeEntry::node).collect();
        circuit.edges.retain(|edge| kept.contains(&edge.from) && kept.contains(&edge.to));
        if widths.by_effect {
            circuit.edges.retain(|edge| edge.effect.abs() >= least);
        }
        circuit.biases.retain(|bias| kept.contains(&bias.node));
        let at = |reads: bool, channel: usize| {
            let of_kind = |node: &&Node| if reads { node.kind.reads_residual() } else { node.kind.writes_residual() };
            kept.iter().filter(of_kind).any(|&node| self.model.residual_channel(node) == Some(channel))
        };
        circuit.embeddings.retain(|entry| at(true, entry.channel));
        circuit.unembeddings.retain(|entry| at(false, entry.channel));
        Ok(circuit)
    }
}
