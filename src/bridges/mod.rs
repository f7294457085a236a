//! Bridges between a dense model and a sparse one (method: section 5): at every site of the
//! residual stream an encoder, from the dense stream to the sparse one, and a decoder back, so that
//! the one model can continue what the other has begun.
//!
//! * [`Bridges`] are the encoders and decoders;
//! * [`Objective`] is what they and the sparse model are trained for,
//!   [`Terms`](crate::train::bridge_loss::Terms) what it is made of;
//! * [`BridgeTrainer`] trains them, [`estimate()`] says what that needs, [`BridgeFile`] names the
//!   models they join;
//! * [`evaluate()`] says how well they do;
//! * [`Steering`] makes the dense model do what a channel of the sparse one says, [`Recipe`] how,
//!   as a file and as a command.

mod answers;
mod candidates;
mod estimate;
mod evaluate;
mod file;
mod maps;
mod objective;
mod pipeline;
mod recipe;
mod run;
mod steer;
mod train;

pub use answers::{NextToken, Ranking, SteerResult};
pub use candidates::{Effect, PromptPair, RandomChannels, RankedChannel, StrengthSweep, residual_channels};
pub use estimate::estimate;
pub use evaluate::{BridgeEvaluation, Numbers, SiteEvaluation, evaluate};
pub use file::{BridgeFile, ModelName};
pub use maps::{BridgeTensor, Bridges};
pub use objective::{BridgeGradients, Objective};
pub use pipeline::{ModelPair, PairRequest, SteerRequest, SteerTarget, TaskSteering};
pub use recipe::{Comparison, MAX_DRAWS, MAX_STRENGTH, Recipe, Strengths};
pub use run::{BridgeRequest, train_bridges};
pub use steer::{Change, Channel, Ratio, Reading, Scale, Steering};
pub use train::{BridgeStepRecord, BridgeTrainer};
