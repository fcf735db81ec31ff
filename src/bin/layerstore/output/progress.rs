//! Bars for what takes long: one for each layer, and one for all of them.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use layerstore::Progress;

use super::text;

const LAYER: &str = "{prefix:12}  {bar:26.cyan/dim}  {decimal_bytes:>10} / {decimal_total_bytes:10}  {msg}";
const TOTAL: &str = "{prefix:12}  {bar:26.green/dim}  {decimal_bytes:>10} / {decimal_total_bytes:10}  {decimal_bytes_per_sec}";
const CHECK: &str = "checking  {bar:30.green/dim}  {pos} / {len}";
const SHARE: &str = "comparing  {bar:30.green/dim}  {decimal_bytes:>10} / {decimal_total_bytes:10}";
const SPINNER: &str = "{spinner} {msg}";

/// Bars on standard error, if that is a terminal. They go away when dropped.
#[derive(Debug)]
pub struct ProgressBars {
    multi: MultiProgress,
    total: ProgressBar,
    layers: Mutex<HashMap<String, ProgressBar>>,
}

impl ProgressBars {
    /// Bars that show nothing yet, or nothing ever.
    pub fn new(shown: bool) -> Self {
        // Draws nothing where standard error is no terminal.
        let target = if shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let multi = MultiProgress::with_draw_target(target);
        let total = multi.add(ProgressBar::new(0).with_style(style(TOTAL)).with_prefix("total"));
        ProgressBars { multi, total, layers: Mutex::default() }
    }

    /// Takes what an operation reports.
    pub fn update(&self, progress: &Progress<'_>) {
        let mut layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        match progress {
            Progress::LayerStarted { blob, size } => {
                let bar = ProgressBar::new(*size).with_style(style(LAYER));
                let bar = self.multi.insert_before(&self.total, bar);
                bar.set_prefix(text::short(blob.hex(), false).to_owned());
                layers.insert(blob.to_string(), bar);
                self.total.inc_length(*size);
            }
            Progress::LayerBytes { blob, bytes } => {
                if let Some(bar) = layers.get(&blob.to_string()) {
                    bar.inc(*bytes);
                }
                self.total.inc(*bytes);
            }
            Progress::LayerDone { blob } => {
                if let Some(bar) = layers.get(&blob.to_string()) {
                    bar.finish_with_message("done");
                }
            }
            Progress::LayerKnown { blob } => {
                let bar = ProgressBar::new(1).with_style(style("{prefix:12}  {msg}"));
                let bar = self.multi.insert_before(&self.total, bar);
                bar.set_prefix(text::short(blob.hex(), false).to_owned());
                bar.finish_with_message("already there");
                layers.insert(blob.to_string(), bar);
            }
            Progress::Syncing => {
                self.total.set_style(style(SPINNER));
                self.total.set_message("syncing to disk");
                self.total.enable_steady_tick(Duration::from_millis(100));
            }
            Progress::Checked { done, total } => {
                self.total.set_style(style(CHECK));
                self.total.set_length(*total);
                self.total.set_position(*done);
            }
            Progress::Sharing { done, total } => {
                self.total.set_style(style(SHARE));
                self.total.set_length(*total);
                self.total.set_position(*done);
            }
            _ => {}
        }
    }
}

impl Drop for ProgressBars {
    fn drop(&mut self) {
        let layers = self.layers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for bar in layers.values().chain([&self.total]) {
            bar.finish_and_clear();
        }
    }
}

/// A template of this file; the plain bar if it should be malformed.
fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_well_formed() {
        for template in [LAYER, TOTAL, CHECK, SHARE, SPINNER] {
            ProgressStyle::with_template(template).unwrap();
        }
    }
}
