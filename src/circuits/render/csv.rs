//! A circuit as two tables for spreadsheets and data frames: its nodes and its edges. No field needs
//! quotes.

use crate::circuits::file::{Circuit, NodeEntry};

/// The nodes, a line each, in the order of the forward pass. The columns are the fields of the
/// circuit file; what a node has none of is empty.
pub fn nodes_csv(circuit: &Circuit) -> String {
    let circuit = circuit.clone().normalised();
    let mut out = String::from(
        "node,site,layer,kind,index,head,channel,mean,tau,ablation_delta,bias,clean_min,clean_mean,clean_max,\
         counterfactual_min,counterfactual_mean,counterfactual_max,difference_last,difference_largest\n",
    );
    for entry in &circuit.nodes {
        let NodeEntry { layer, kind, index, head, channel, mean, tau, ablation_delta, clean, counterfactual, .. } =
            entry;
        let node = entry.node();
        let kind = serde_json::to_value(kind).unwrap_or_default();
        let bias = circuit.biases.iter().find(|bias| bias.node == node).map(|bias| bias.value);
        let fields = [
            node.to_string(),
            node.site().to_string(),
            optional(*layer),
            kind.as_str().unwrap_or_default().into(),
            index.to_string(),
            optional(*head),
            optional(*channel),
            mean.to_string(),
            tau.to_string(),
            ablation_delta.to_string(),
            optional(bias),
        ];
        let ranges = [clean, counterfactual].into_iter().flat_map(|range| [range.min, range.mean, range.max]);
        let differences = [entry.difference.map(|d| d.last), entry.difference.map(|d| d.largest)].map(optional);
        let fields: Vec<String> =
            fields.into_iter().chain(ranges.map(|value| value.to_string())).chain(differences).collect();
        out.push_str(&fields.join(","));
        out.push('\n');
    }
    out
}

/// The edges, a line each, by source and target: the weight, and how much the task loss rises if the
/// edge is ablated.
pub fn edges_csv(circuit: &Circuit) -> String {
    let circuit = circuit.clone().normalised();
    let lines = circuit.edges.iter().map(|edge| format!("{},{},{},{}\n", edge.from, edge.to, edge.weight, edge.effect));
    ["source,target,weight,effect\n".to_string()].into_iter().chain(lines).collect()
}

fn optional(value: Option<impl ToString>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}
