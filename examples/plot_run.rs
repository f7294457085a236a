//! Draws a run's loss and density over its steps as an SVG: `plot_run runs/quickstart run.svg`.

use std::path::Path;

use anyhow::{Context, Result, bail};
use gossamer::files::write_atomic;
use serde_json::Value;

const SIZE: (f64, f64) = (640.0, 300.0);
const MARGIN: f64 = 44.0;

/// One curve: its name, colour, and points (step, height from 0 at the bottom to 1 at the top).
struct Curve(&'static str, &'static str, Vec<(f64, f64)>);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [run, svg] = arguments.as_slice() else { bail!("usage: plot_run RUN_FOLDER FILE.svg") };
    let path = Path::new(run).join("metrics.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lines: Vec<Value> = text
        .split_inclusive('\n')
        .filter_map(|line| match serde_json::from_str(line) {
            // Still being written, or cut off by a kill.
            Err(_) if !line.ends_with('\n') => None,
            read => Some(read),
        })
        .collect::<Result<_, _>>()?;
    let series = |name: &str| -> Vec<(f64, f64)> {
        lines.iter().filter_map(|line| Some((line["step"].as_f64()?, line[name].as_f64()?))).collect()
    };
    let (loss, validation, density) = (series("loss"), series("validation_loss"), series("density"));
    let Some(last) = loss.last().map(|point| point.0) else { bail!("{} holds no steps", path.display()) };
    let top = loss.iter().map(|point| point.1).fold(0.0, f64::max).ceil();
    let scale = |points: Vec<(f64, f64)>| points.into_iter().map(|(x, y)| (x, y / top)).collect();
    // Densities span decades: the right-hand axis is logarithmic, from 1 in 1000 to 1.
    let decades = density.into_iter().map(|(x, y)| (x, 1.0 + y.log10() / 3.0)).collect();
    let curves = [
        Curve("loss", "#9db7d5", scale(loss)),
        Curve("validation loss", "#1f4e8c", scale(validation)),
        Curve("density (log, right)", "#c0602b", decades),
    ];
    let drawing = draw(&curves, last, top);
    write_atomic(svg, |out| out.write_all(drawing.as_bytes()).map_err(|e| gossamer::Error::io(svg, e)))?;
    println!("{} steps in {svg}", last);
    Ok(())
}

fn draw(curves: &[Curve], last: f64, top: f64) -> String {
    let (width, height) = (SIZE.0 - 2.0 * MARGIN, SIZE.1 - 2.0 * MARGIN);
    let place = |x: f64, y: f64| (MARGIN + x / last * width, MARGIN + (1.0 - y) * height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n",
        SIZE.0, SIZE.1
    );
    for i in 0..=3 {
        let part = f64::from(i) / 3.0;
        let (x, y) = place(0.0, part);
        let right = SIZE.0 - MARGIN;
        svg += &format!(
            "<path d=\"M{x} {y:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{:.1}</text><text x=\"{}\" y=\"{:.1}\">{}</text>\n",
            x - 6.0,
            y + 4.0,
            part * top,
            right + 6.0,
            y + 4.0,
            ["1/1000", "1/100", "1/10", "1"][i as usize]
        );
    }
    for (i, Curve(name, colour, points)) in curves.iter().enumerate() {
        let path: Vec<_> = points.iter().map(|&(x, y)| place(x, y)).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        svg += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.6\"/>\n\
             <text x=\"{}\" y=\"20\" fill=\"{colour}\">{name}</text>\n",
            path.join(" "),
            MARGIN + 170.0 * i as f64
        );
    }
    svg += &format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{last} steps</text>\n</svg>\n",
        SIZE.0 - MARGIN,
        SIZE.1 - 14.0
    );
    svg
}
