//! `gossamer push`.

use anyhow::Result;
use crate::formats::Hub;
use crate::formats::hub::HubId;
use crate::pipelines::{PushRequest, push};

use super::open::{JsonArgs, SourceArgs, report};

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    source: SourceArgs,
    /// The repository on the Hub, owner/name; it is created unless it exists
    #[arg(value_name = "OWNER/NAME", value_parser = repository)]
    repository: HubId,
    /// Create the repository so that only its owner sees it; one that exists must be private
    #[arg(long)]
    private: bool,
    /// The branch; it is created unless it exists
    #[arg(long, default_value = "main", value_name = "BRANCH")]
    revision: String,
    /// The first line of the commit [default: Push MODEL with gossamer]
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// The license that the model card names, such as apache-2.0 [default: none]
    #[arg(long, value_name = "NAME")]
    license: Option<String>,
    /// Send nothing: show the files and the model card
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: JsonArgs,
}

/// `owner/name`; the branch has an option of its own.
fn repository(text: &str) -> Result<HubId, String> {
    let id = HubId::parse(text).filter(|_| !text.contains('@'));
    id.ok_or_else(|| format!("`{text}` is not a repository's name, owner/name"))
}

pub fn run(args: &Args) -> Result<()> {
    let text = format!("{}@{}", args.repository.repository, args.revision);
    let id = HubId::parse(&text).ok_or_else(|| anyhow::anyhow!("`{}` is not the name of a branch", args.revision))?;
    let name = std::path::Path::new(&args.source.model).file_name().unwrap_or_default().display();
    let request = PushRequest {
        id,
        hub: Hub::default(),
        private: args.private,
        message: args.message.clone().unwrap_or_else(|| format!("Push {name} with gossamer")),
        license: args.license.clone(),
        dry_run: args.dry_run,
    };
    report(&[], args.output.json, |progress| {
        progress.stage("opening the model");
        let files = args.source.load.files(&args.source.model)?;
        Ok(push(&files, &request, progress.observer())?.report()?)
    })
}
