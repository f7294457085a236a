//! Charts, read back as pixels.

use std::collections::BTreeMap;

use gossamer::chart::{Axis, Bars, Chart, Series};
use gossamer::report::{Cell, Column, Report, Table};
use serde_json::{Value, json};

fn chart(log: bool, points: Vec<(f64, f64)>) -> Chart {
    let axis = if log { Axis::log("across") } else { Axis::linear("across") };
    let series = vec![Series { name: String::new(), color: (255, 0, 0), line: false, points }];
    Chart { title: "A title".into(), x: axis.clone(), y: axis, series }
}

/// Width, height and RGB pixels.
fn pixels(chart: &Chart) -> (usize, usize, Vec<u8>) {
    let bytes = chart.png(400, 300).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width as usize, info.height as usize, data)
}

/// The centres of the red dots, left to right.
fn dots(chart: &Chart) -> Vec<(f64, f64)> {
    let (width, height, data) = pixels(chart);
    let red = |x: usize, y: usize| data[(y * width + x) * 3..][..3] == [255, 0, 0];
    let mut seen = vec![false; width * height];
    let mut found = Vec::new();
    for start in 0..width * height {
        let (mut sum, mut todo) = ((0.0, 0.0, 0.0), vec![start]);
        while let Some(at) = todo.pop() {
            let (x, y) = (at % width, at / width);
            if std::mem::replace(&mut seen[at], true) || !red(x, y) {
                continue;
            }
            sum = (sum.0 + x as f64, sum.1 + y as f64, sum.2 + 1.0);
            let near = [(x > 0, at.wrapping_sub(1)), (x + 1 < width, at + 1)];
            let far = [(y > 0, at.wrapping_sub(width)), (y + 1 < height, at + width)];
            todo.extend(near.into_iter().chain(far).filter(|(inside, _)| *inside).map(|(_, at)| at));
        }
        if sum.2 > 4.0 {
            found.push((sum.0 / sum.2, sum.1 / sum.2));
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found
}

#[test]
fn dots_stand_where_their_numbers_say() {
    // Three points on a line: the middle one is half-way, on either kind of axis.
    for (log, points) in
        [(false, vec![(1.0, 10.0), (2.0, 20.0), (3.0, 30.0)]), (true, vec![(1.0, 1e2), (10.0, 1e4), (100.0, 1e6)])]
    {
        let [a, b, c] = dots(&chart(log, points))[..] else { panic!("three dots") };
        assert!((b.0 - (a.0 + c.0) / 2.0).abs() <= 1.0 && (b.1 - (a.1 + c.1) / 2.0).abs() <= 1.0, "{a:?} {b:?} {c:?}");
        assert!(c.0 > a.0 + 200.0 && c.1 < a.1 - 120.0, "larger is further right and higher: {a:?} {c:?}");
    }
    let wrong = dots(&chart(false, vec![(1.0, 10.0), (2.5, 20.0), (3.0, 30.0)]));
    assert!((wrong[1].0 - (wrong[0].0 + wrong[2].0) / 2.0).abs() > 20.0, "another value is drawn at another height");
}

#[test]
fn a_name_puts_a_series_into_the_legend() {
    let mut named = chart(false, vec![(1.0, 10.0), (3.0, 30.0)]);
    assert_eq!(dots(&named).len(), 2);
    named.series[0].name = "red".into();
    assert_eq!(dots(&named).len(), 3);
}

#[test]
fn what_cannot_be_drawn_is_left_out() {
    assert_eq!(dots(&chart(true, vec![(1.0, 1.0), (0.0, 1.0), (-2.0, 3.0), (f64::NAN, 1.0)])).len(), 1);
    assert_eq!(dots(&chart(false, vec![(f64::INFINITY, 1.0)])).len(), 0);
    assert_eq!(dots(&chart(false, Vec::new())).len(), 0);
    assert!(chart(false, Vec::new()).png(50, 300).is_err());
    assert!(chart(false, Vec::new()).png(400, 1_000_000).is_err());
}

#[test]
fn the_same_chart_has_the_same_bytes_and_text_leaves_marks() {
    let chart = chart(false, vec![(1.0, 2.0), (3.0, 4.0)]);
    assert_eq!(chart.png(400, 300).unwrap(), chart.png(400, 300).unwrap());
    let (width, _, data) = pixels(&chart);
    let dark =
        |rows: std::ops::Range<usize>| (rows.start * width..rows.end * width).filter(|&i| data[i * 3] < 100).count();
    assert!(dark(8..40) > 30, "the title");
    assert!(dark(270..300) > 10, "the axis' name");
    let folder = tempfile::tempdir().unwrap();
    chart.save(&folder.path().join("a.png")).unwrap();
    let error = chart.save(&folder.path().join("none/a.png")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
fn bars_reach_to_their_ratios() {
    let bars = |ratios: Vec<Option<f64>>| {
        let bars = Bars {
            title: "t".into(),
            names: vec!["one".into()],
            colors: vec![(255, 0, 0)],
            groups: vec![("g".into(), ratios)],
        };
        let mut reader = png::Decoder::new(std::io::Cursor::new(bars.png().unwrap())).read_info().unwrap();
        let mut data = vec![0; reader.output_buffer_size().unwrap()];
        let width = reader.next_frame(&mut data).unwrap().width as usize;
        // The legend's square is at the left.
        (0..data.len() / 3)
            .filter(|i| i % width > 100 && data[i * 3..][..3] == [255, 0, 0])
            .map(|i| i % width)
            .collect::<Vec<_>>()
    };
    let (more, less) = (bars(vec![Some(10.0)]), bars(vec![Some(0.1)]));
    let ends = |bar: &[usize]| (*bar.iter().min().unwrap(), *bar.iter().max().unwrap());
    // A bar of ten times and one of a tenth fill the same span on either side of 1.
    let ((a, b), (c, d)) = (ends(&more), ends(&less));
    assert!(b - a > 350 && (b - a).abs_diff(d - c) <= 2, "{a} {b} {c} {d}");
    assert!(bars(vec![None]).is_empty() && bars(vec![Some(f64::NAN)]).is_empty());
}

fn table() -> Table {
    let mut table = Table::new("sites", [Column::text("site"), Column::decimals("nmse", 3).unit("nats")]);
    table.push(["0.mlp".into(), 0.25.into()]);
    table.push(["final, or last".into(), Cell::Empty]);
    table
}

#[test]
fn text_csv_and_json_hold_the_same_cells() {
    let facts = Report::new().note("over 12 tokens").fact("tokens", 12usize, "12").fact("loss", 1.5, "1.500 nats");
    let report = facts.table(table()).paragraph("at the end");
    let want = "over 12 tokens\n\ntokens  12\nloss    1.500 nats\n\nsite            nmse (nats)\n\
                0.mlp                 0.250\nfinal, or last\n\nat the end\n";
    assert_eq!(report.text(), want);
    let json: Value = serde_json::from_str(&report.json()).expect("JSON");
    let rows = json!([{ "site": "0.mlp", "nmse": 0.25 }, { "site": "final, or last", "nmse": null }]);
    assert_eq!(json, json!({ "tokens": 12, "loss": 1.5, "sites": rows }));
    assert_eq!(table().csv(), "site,nmse\n0.mlp,0.25\n\"final, or last\",\n");
}

#[test]
fn a_result_keeps_its_own_json() {
    let report = Report::of(&BTreeMap::from([("loss", 0.1f32)])).expect("JSON").note("loss 0.1");
    assert_eq!((report.json().as_str(), report.text().as_str()), ("{\n  \"loss\": 0.1\n}", "loss 0.1\n"));
}

#[test]
fn a_table_is_drawn_as_a_line_for_each_column() {
    let mut table = Table::new("steps", ["step", "loss"].map(Column::number));
    [(1.0, 3.0), (2.0, 2.5)].into_iter().for_each(|(x, y)| table.push([x.into(), y.into()]));
    let chart = table.chart("Loss", "step", &["loss"], Axis::log("nats")).expect("a chart");
    assert_eq!(chart.series[0].points, [(1.0, 3.0), (2.0, 2.5)]);
    assert!(table.chart("Loss", "step", &["kl"], Axis::log("nats")).is_err());
}
