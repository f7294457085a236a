//! Downloads of models.

use std::path::PathBuf;

use super::{Hub, HubId};
use crate::files::{ShardedSafetensors, create_folder, write_atomic};
use crate::formats::names::{BEEG_CONFIG, CONFIG, INDEX, PYTORCH, TOKENIZER, TORCH, WEIGHTS};
use crate::hub::{Client, RepositoryKind};
use crate::text::tokenizer::{PAIRS, SETTINGS};
use crate::{Error, Result};

/// Downloads what of the model `id` is not in the cache yet, and returns the folder with all of it.
pub(super) fn download(hub: &Hub, id: &HubId, progress: bool) -> Result<PathBuf> {
    let download = Client::new(hub, RepositoryKind::Model, id, progress)?;
    let home = download.home();
    let (commit, offered) = download.list()?;
    let snapshot = home.join("snapshots").join(&commit);
    let offers = |name: &str| offered.iter().any(|file| file == name);
    let fetch = |name: &str| download.file(&commit, &snapshot, name);

    let configs: Vec<_> = [CONFIG, BEEG_CONFIG].into_iter().filter(|name| offers(name)).collect();
    let weights = [WEIGHTS, INDEX, TORCH, PYTORCH].into_iter().find(|name| offers(name));
    let (false, Some(weights)) = (configs.is_empty(), weights) else {
        return Err(Error::Hub(format!(
            "{id} on {} is not such a model: it needs {CONFIG} or {BEEG_CONFIG}, and {WEIGHTS}, {INDEX}, {TORCH} or {PYTORCH}",
            hub.endpoint
        )));
    };
    configs.into_iter().try_for_each(fetch)?;
    let pair = PAIRS.iter().find(|pair| pair.iter().all(|name| offers(name)));
    let tokenizer = if offers(TOKENIZER) { Some(&[TOKENIZER][..]) } else { pair.map(|pair| &pair[..]) };
    if let Some(files) = tokenizer {
        files.iter().copied().chain([SETTINGS].into_iter().filter(|name| offers(name))).try_for_each(fetch)?;
    } else {
        let marker = hub.no_tokenizer(&snapshot);
        create_folder(marker.parent().unwrap_or(home))?;
        write_atomic(marker, |_| Ok(()))?;
    }
    fetch(weights)?;
    if weights == INDEX {
        ShardedSafetensors::files(snapshot.join(INDEX))?.iter().try_for_each(|shard| fetch(shard))?;
    }
    download.remember(&commit)?;
    Ok(snapshot)
}
