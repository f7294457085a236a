//! What is waiting to run, and how it is submitted to the driver.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{Buffer, Gpu, lock};
use crate::device::Element;
use crate::{Error, Result};

/// Parameters of launches take multiples of so many bytes: the largest alignment WebGPU allows a
/// device to ask for.
pub(super) const PARAMS_STRIDE: usize = 256;
/// Most bytes of the parameters of one launch: what WebGPU's default limits let a uniform have, less
/// what wgpu keeps free of it on some backends.
pub(super) const MAX_PARAMS: usize = 1 << 13;
/// Bytes of the parameters of all launches in one submission.
const PARAMS_BYTES: usize = 1 << 16;
/// Most estimated operations in one submission, so that no driver's watchdog takes it for a hang.
const MAX_COST: u64 = 40_000_000_000;
/// Most submissions in flight, so that the driver's queue, and with it memory, stays flat.
const MAX_IN_FLIGHT: usize = 4;

pub(super) enum Command {
    Dispatch { pipeline: wgpu::ComputePipeline, bindings: wgpu::BindGroup, params: u32, workgroups: (u32, u32, u32) },
    Copy { from: (wgpu::Buffer, u64), to: (wgpu::Buffer, u64), bytes: u64 },
    Clear { buffer: wgpu::Buffer, offset: u64, bytes: Option<u64> },
}

pub(super) struct Pending {
    commands: Vec<Command>,
    params: Vec<u8>,
    params_buffer: wgpu::Buffer,
    cost: u64,
    in_flight: std::collections::VecDeque<wgpu::SubmissionIndex>,
    /// What launches bound before, by the numbers of pipeline and buffers.
    groups: HashMap<GroupKey, wgpu::BindGroup>,
    pub(super) groups_made: u64,
}

/// The number of a pipeline, and [`Buffer::key`] of each of its buffers; 0s where there are fewer
/// than 8.
pub(super) type GroupKey = (u64, [[u64; 3]; 8]);

/// Most bind groups to remember. A step of a hundred layers makes fewer.
const MAX_GROUPS: usize = 16_384;

impl Pending {
    pub(super) fn new(device: &wgpu::Device) -> Self {
        let params_buffer = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("params"),
            size: PARAMS_BYTES as u64,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        Self {
            commands: Vec::new(),
            params: Vec::new(),
            params_buffer,
            cost: 0,
            in_flight: Default::default(),
            groups: HashMap::new(),
            groups_made: 0,
        }
    }

    /// The bind group of that key, from `make` if it is new. Memory that is used again in the same
    /// order, as in every step of a training, gives the same ones.
    pub(super) fn group(
        &mut self,
        key: GroupKey,
        make: impl FnOnce(&wgpu::Buffer) -> wgpu::BindGroup,
    ) -> wgpu::BindGroup {
        if let Some(group) = self.groups.get(&key) {
            return group.clone();
        }
        if self.groups.len() >= MAX_GROUPS {
            self.groups.clear();
        }
        self.groups_made += 1;
        let group = make(&self.params_buffer);
        self.groups.insert(key, group.clone());
        group
    }
}

impl Gpu {
    /// Stores a launch's parameters, after submitting what waits if there is no room for them, and
    /// returns their offset in the parameter buffer.
    pub(super) fn push_params(&self, pending: &mut Pending, params: &[u8]) -> Result<u32> {
        let bytes = params.len().next_multiple_of(PARAMS_STRIDE);
        if pending.params.len() + bytes > PARAMS_BYTES {
            self.submit(pending)?;
        }
        let offset = pending.params.len();
        pending.params.extend_from_slice(params);
        pending.params.resize(offset + bytes, 0);
        Ok(offset as u32)
    }

    pub(super) fn record(&self, pending: &mut Pending, command: Command, cost: u64) -> Result<()> {
        pending.commands.push(command);
        pending.cost += cost;
        if pending.cost >= MAX_COST {
            self.submit(pending)?;
        }
        Ok(())
    }

    fn submit(&self, pending: &mut Pending) -> Result<()> {
        if pending.commands.is_empty() {
            return self.check();
        }
        let device = &self.shared.device;
        if !pending.params.is_empty() {
            self.shared.queue.write_buffer(&pending.params_buffer, 0, &pending.params);
        }
        let mut encoder = device.create_command_encoder(&Default::default());
        let mut commands = pending.commands.drain(..).peekable();
        while let Some(command) = commands.next() {
            match command {
                Command::Copy { from: (from, start), to: (to, offset), bytes } => {
                    encoder.copy_buffer_to_buffer(&from, start, &to, offset, Some(bytes));
                }
                Command::Clear { buffer, offset, bytes } => encoder.clear_buffer(&buffer, offset, bytes),
                dispatch => {
                    let mut pass = encoder.begin_compute_pass(&Default::default());
                    let mut next = Some(dispatch);
                    while let Some(Command::Dispatch { pipeline, bindings, params, workgroups }) = next {
                        pass.set_pipeline(&pipeline);
                        pass.set_bind_group(0, &bindings, &[params]);
                        pass.dispatch_workgroups(workgroups.0, workgroups.1, workgroups.2);
                        next = commands.next_if(|c| matches!(c, Command::Dispatch { .. }));
                    }
                }
            }
        }
        drop(commands);
        pending.params.clear();
        pending.cost = 0;
        pending.in_flight.push_back(self.shared.queue.submit([encoder.finish()]));
        if pending.in_flight.len() > MAX_IN_FLIGHT {
            self.wait_for(pending.in_flight.pop_front())?;
        }
        self.check()
    }

    fn wait_for(&self, submission_index: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let start = Instant::now();
        let done = self.shared.device.poll(wgpu::PollType::Wait { submission_index, timeout: None });
        self.shared.waited.fetch_add(start.elapsed().as_nanos() as u64, Ordering::Relaxed);
        done.map_err(|e| Error::Device(format!("{}: {e}", self.shared.info.name)))?;
        Ok(())
    }

    pub(in crate::device) fn wait(&self) -> Result<()> {
        let mut pending = lock(&self.shared.pending)?;
        self.submit(&mut pending)?;
        pending.in_flight.clear();
        self.wait_for(None)?;
        self.check()
    }

    pub(in crate::device) fn write(&self, buffer: &Buffer, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        // The queue runs writes before the next submission, so that what was recorded earlier must
        // go first.
        let mut pending = lock(&self.shared.pending)?;
        self.submit(&mut pending)?;
        self.shared.queue.write_buffer(buffer.raw(), buffer.offset(), bytes);
        Ok(())
    }

    pub(in crate::device) fn clear(&self, buffer: &Buffer) -> Result<()> {
        let command = Command::Clear {
            buffer: buffer.raw().clone(),
            offset: buffer.offset(),
            bytes: buffer.part.map(|part| part.bytes),
        };
        self.record(&mut *lock(&self.shared.pending)?, command, 0)
    }

    /// Copies `bytes` of one buffer to the start of another, which is not a part of the same one.
    pub(in crate::device) fn copy(&self, from: &Buffer, to: &Buffer, bytes: u64) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let [from, to] = [from, to].map(|buffer| (buffer.raw().clone(), buffer.offset()));
        self.record(&mut *lock(&self.shared.pending)?, Command::Copy { from, to, bytes }, 0)
    }

    pub(in crate::device) fn read<T: Element>(&self, buffer: &Buffer, len: usize) -> Result<Vec<T>> {
        let bytes = (len * size_of::<T>()) as u64;
        if bytes == 0 {
            return Ok(Vec::new());
        }
        let staging =
            self.create_buffer("readback", bytes, wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)?;
        let command = Command::Copy { from: (buffer.raw().clone(), buffer.offset()), to: (staging.clone(), 0), bytes };
        self.record(&mut *lock(&self.shared.pending)?, command, 0)?;
        let mut pending = lock(&self.shared.pending)?;
        self.submit(&mut pending)?;
        let (send, receive) = std::sync::mpsc::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            let _ = send.send(result);
        });
        pending.in_flight.clear();
        self.wait_for(None)?;
        drop(pending);
        self.check()?;
        let failed = |reason: String| Error::Device(format!("{}: reading back: {reason}", self.shared.info.name));
        receive.recv().map_err(|e| failed(e.to_string()))?.map_err(|e| failed(e.to_string()))?;
        let view = staging.get_mapped_range(..).map_err(|e| failed(e.to_string()))?;
        let mut out = vec![T::default(); len];
        bytemuck::cast_slice_mut(&mut out).copy_from_slice(&view);
        drop(view);
        staging.unmap();
        Ok(out)
    }
}
