//! Charts, read back as SVG, pixels and PDF.

use std::collections::BTreeMap;
use std::io::Read;

use gossamer::Error;
use gossamer::chart::{Axis, Bar, Bars, COLORS, Chart, Picture, Series};
use gossamer::report::{Cell, Column, Report, Table};
use serde_json::{Value, json};

fn chart(log: bool, points: Vec<(f64, f64)>) -> Chart {
    let axis = if log { Axis::log("across") } else { Axis::linear("across") };
    Chart { title: "A title".into(), x: axis.clone(), y: axis, series: vec![Series::line("", 0, points)] }
}

fn drawn(chart: &Chart) -> Picture {
    chart.draw(600.0, 400.0).unwrap()
}

/// The attribute `name` of every element `element`.
fn attributes<'a>(svg: &'a str, element: &str, name: &str) -> Vec<&'a str> {
    let elements = svg.lines().filter(|line| line.starts_with(&format!("<{element} ")));
    let value = |line: &'a str| line.split_once(&format!(" {name}=\"")).and_then(|(_, rest)| rest.split('"').next());
    elements.filter_map(value).collect()
}

/// The numbers in a list of points.
fn points(list: &str) -> Vec<(f64, f64)> {
    let point = |text: &str| text.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
    list.split(' ').filter_map(point).collect()
}

/// The texts at which a number of the axis stands, with their places: (text, x, y).
fn texts(svg: &str) -> Vec<(String, f64, f64)> {
    let number = |line: &str, name: &str| {
        let value = line.split_once(&format!(" {name}=\"")).unwrap().1;
        value.split('"').next().unwrap().parse().unwrap()
    };
    let text = |line: &str| line.split_once('>').unwrap().1.split('<').next().unwrap().to_string();
    let lines = svg.lines().filter(|line| line.starts_with("<text "));
    lines.map(|line| (text(line), number(line, "x"), number(line, "y"))).collect()
}

/// Width, height, pixels an inch and RGB pixels.
fn pixels(picture: &Picture) -> (usize, usize, f64, Vec<u8>) {
    let mut reader = png::Decoder::new(std::io::Cursor::new(picture.png().unwrap())).read_info().unwrap();
    let mut data = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut data).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    let inch = f64::from(reader.info().pixel_dims.unwrap().xppu) * 0.0254;
    (info.width as usize, info.height as usize, inch, data)
}

#[test]
fn a_line_goes_where_the_ticks_say() {
    // Where a value is follows from the places of two ticks; the points do not decide them.
    let linear = |v: f64| v;
    for (log, scale, values, [low, high]) in [
        (
            false,
            &linear as &dyn Fn(f64) -> f64,
            vec![(1.0, 10.0), (2.0, 25.0), (3.0, 30.0)],
            [("1.0", "3.0"), ("10", "30")],
        ),
        (true, &f64::log10, vec![(1.0, 1e2), (20.0, 1e4), (100.0, 1e5)], [("1", "100"), ("100", "10,000")]),
    ] {
        let picture = drawn(&chart(log, values.clone()));
        let texts = texts(picture.svg());
        let [across, up] = [0, 1].map(|axis| {
            let (low, high) = [low, high][axis];
            let at = |label: &str| {
                let number: f64 = label.replace(',', "").parse().unwrap();
                let same = texts.iter().filter(|text| text.0 == label);
                // Texts of the vertical axis have one right edge, left of those of the horizontal.
                let place = if axis == 0 {
                    same.max_by(|a, b| a.2.total_cmp(&b.2))
                } else {
                    same.min_by(|a, b| a.1.total_cmp(&b.1))
                };
                let (_, x, y) = place.unwrap_or_else(|| panic!("{label}: {texts:?}"));
                (scale(number), if axis == 0 { *x } else { y - 0.35 * 12.5 })
            };
            let ((a, p), (b, q)) = (at(low), at(high));
            move |v: f64| p + (v - a) / (b - a) * (q - p)
        });
        let line = points(attributes(picture.svg(), "polyline", "points")[0]);
        assert_eq!(line.len(), 3);
        for ((x, y), value) in line.into_iter().zip(values) {
            let want = (across(scale(value.0)), up(scale(value.1)));
            assert!((x - want.0).abs() < 0.02 && (y - want.1).abs() < 0.02, "{value:?}: {x}, {y} and not {want:?}");
        }
    }
}

#[test]
fn a_band_encloses_the_runs_and_the_line_is_their_mean() {
    let runs = [vec![(1.0, 2.0), (2.0, 4.0), (3.0, 9.0)], vec![(1.0, 4.0), (2.0, 8.0)], vec![(2.0, 3.0), (1.0, 3.0)]];
    let series = Series::spread("mean", 0, &runs);
    assert_eq!(series.points, [(1.0, 3.0), (2.0, 5.0), (3.0, 9.0)]);
    assert_eq!(series.band, [(1.0, 2.0, 4.0), (2.0, 3.0, 8.0), (3.0, 9.0, 9.0)]);
    assert_eq!(Series::spread("one", 0, &runs[..1]).points, runs[0]);
    let picture = drawn(&Chart { series: vec![series], ..chart(false, Vec::new()) });
    let band = points(attributes(picture.svg(), "polygon", "points")[0]);
    let line = points(attributes(picture.svg(), "polyline", "points")[0]);
    // From left to right along the top, and back below.
    let unit = (line[0].1 - line[1].1) / 2.0;
    let heights: Vec<f64> = band.iter().map(|point| 3.0 + (line[0].1 - point.1) / unit).collect();
    for (height, want) in heights.iter().zip([4.0, 8.0, 9.0, 9.0, 3.0, 2.0]) {
        assert!((height - want).abs() < 0.01, "{heights:?}");
    }
}

#[test]
fn a_legend_covers_no_data() {
    for name in ["short", "a name that is so long that it has no room next to the plot, but below it"] {
        let mut named = chart(false, vec![(1.0, 10.0), (3.0, 30.0)]);
        assert!(!drawn(&named).svg().contains(name));
        named.series[0].name = name.into();
        let picture = drawn(&named);
        let lines: Vec<_> = attributes(picture.svg(), "polyline", "points").into_iter().map(points).collect();
        let [line, sample] = &lines[..] else { panic!("a line, and one in the legend") };
        assert!(sample[0].0 > line[1].0 || sample[0].1 > line[0].1 + 30.0, "{line:?} {sample:?}");
        let text = texts(picture.svg()).into_iter().find(|text| text.0 == name).expect("the name");
        assert!(text.1 > sample[1].0 && (text.2 - sample[1].1).abs() < 8.0);
    }
}

#[test]
fn names_stand_on_an_axis_and_long_ones_are_turned() {
    let of = |names: &[&str]| {
        let points = (0..names.len()).map(|at| (at as f64, 1.0)).collect();
        let names = names.iter().map(ToString::to_string);
        Chart { x: Axis::named("site", names), ..chart(false, points) }
    };
    let few = drawn(&of(&["in", "<out>"]));
    let at = |name: &str| texts(few.svg()).into_iter().find(|text| text.0 == name).unwrap().1;
    let line = points(attributes(few.svg(), "polyline", "points")[0]);
    assert!((at("in") - line[0].0).abs() < 0.02 && (at("&lt;out&gt;") - line[1].0).abs() < 0.02);
    assert!(!few.svg().contains("rotate(-45"));
    let many = drawn(&of(&["10.attn.resid_in"; 17]));
    assert_eq!(many.svg().matches("rotate(-45").count(), 17);
}

#[test]
fn what_cannot_be_drawn_is_left_out() {
    let markers = |chart: &Chart| attributes(drawn(chart).svg(), "circle", "cx").len();
    assert_eq!(markers(&chart(true, vec![(1.0, 1.0), (0.0, 1.0), (-2.0, 3.0), (f64::NAN, 1.0)])), 1);
    assert_eq!(markers(&chart(false, vec![(f64::INFINITY, 1.0)])), 0);
    assert_eq!(markers(&chart(false, Vec::new())), 0);
    assert!(matches!(chart(false, Vec::new()).draw(50.0, 300.0), Err(Error::Request(_))));
    assert!(matches!(chart(false, Vec::new()).draw(400.0, f64::NAN), Err(Error::Request(_))));
}

#[test]
fn a_line_of_many_points_keeps_its_extremes_and_few_markers() {
    let mut data: Vec<(f64, f64)> = (0..100_000).map(|at| (f64::from(at), 0.0)).collect();
    (data[50_003].1, data[70_001].1) = (5.0, -3.0);
    let picture = drawn(&chart(false, data));
    let line = points(attributes(picture.svg(), "polyline", "points")[0]);
    assert!(line.len() < 6_000, "{}", line.len());
    let height = |fold: fn(f64, f64) -> f64| line.iter().map(|point| point.1).reduce(fold).unwrap();
    let (top, bottom) = (height(f64::min), height(f64::max));
    assert!(((bottom - line[0].1) / (line[0].1 - top) - 3.0 / 5.0).abs() < 1e-3);
    assert_eq!(attributes(picture.svg(), "circle", "cx").len(), 8);
}

#[test]
fn a_png_has_300_pixels_an_inch_and_shows_the_line() {
    let picture = drawn(&chart(false, vec![(1.0, 2.0), (3.0, 4.0)]));
    let (width, height, inch, data) = pixels(&picture);
    assert_eq!((width, height, inch.round()), (1875, 1250, 300.0));
    let (r, g, b) = COLORS[0];
    assert!(data.chunks(3).filter(|pixel| *pixel == [r, g, b]).count() > 2000, "the line");
    let dark = |rows: std::ops::Range<usize>| {
        data[rows.start * width * 3..rows.end * width * 3].chunks(3).filter(|p| p[0] < 100).count()
    };
    assert!(dark(30..110) > 300, "the title");
    assert!(dark(1170..1250) > 100, "the axis' name");
    assert_eq!(picture.png().unwrap(), picture.png().unwrap());
}

#[test]
fn a_pdf_is_one_page_with_the_lines_as_curves() {
    let pdf = drawn(&chart(false, vec![(1.0, 2.0), (3.0, 4.0)])).pdf().unwrap();
    assert!(pdf.starts_with(b"%PDF-") && pdf.trim_ascii_end().ends_with(b"%%EOF"));
    let text = String::from_utf8_lossy(&pdf);
    // 600 by 400 units of 1/96 inch are 450 by 300 points.
    assert!(
        text.contains("/MediaBox [0 0 450 300]") && text.contains("/Count 1") && text.contains("A title"),
        "{text}"
    );
    assert!(!text.contains("/Font"), "text is outlines");
    let start = pdf.windows(7).position(|bytes| bytes == b"stream\n").unwrap() + 7;
    let mut content = String::new();
    flate2::read::ZlibDecoder::new(&pdf[start..]).read_to_string(&mut content).unwrap();
    let color = COLORS[0];
    let stroke = format!("{} {} {} RG", color.0 as f32 / 255.0, color.1 as f32 / 255.0, color.2 as f32 / 255.0);
    assert!(content.contains(&stroke), "{stroke} is not in {content}");
    assert!(content.starts_with("0.75 0 0 -0.75 0 300 cm"));
}

#[test]
fn a_files_extension_decides_its_format() {
    let folder = tempfile::tempdir().unwrap();
    let chart = chart(false, vec![(1.0, 2.0)]);
    for (name, start) in [("a.png", &b"\x89PNG"[..]), ("a.SVG", b"<svg "), ("a.pdf", b"%PDF-")] {
        let path = folder.path().join(name);
        chart.save(&path).unwrap();
        assert!(std::fs::read(&path).unwrap().starts_with(start), "{name}");
    }
    for name in ["a.jpg", "a"] {
        let error = chart.save(&folder.path().join(name)).unwrap_err();
        assert!(matches!(error, Error::Request(_)) && error.to_string().contains(".png, .svg, .pdf"), "{error}");
    }
    let error = chart.save(&folder.path().join("none/a.png")).unwrap_err().to_string();
    assert!(error.contains("none"), "{error}");
}

#[test]
fn bars_reach_to_their_ratios_and_say_their_values() {
    let bar = |ratio: f64| Some(Bar { ratio, text: format!("{ratio} GB/s") });
    let bars = Bars {
        title: "Speed relative to one".into(),
        baseline: "times".into(),
        names: vec!["one".into(), "two".into(), "three".into(), "four".into()],
        groups: vec![("work".into(), vec![bar(10.0), bar(0.1), None, bar(f64::NAN)])],
    };
    let picture = bars.draw().unwrap();
    // The background, the legend's squares, then the bars.
    let [from, width] = ["x", "width"].map(|name| -> Vec<f64> {
        attributes(picture.svg(), "rect", name).into_iter().map(|v| v.parse().unwrap()).collect()
    });
    let [.., more, less] = width[..] else { panic!("{width:?}") };
    let (more_from, less_from) = (from[from.len() - 2], from[from.len() - 1]);
    // Ten times and a tenth are equally far from 1.
    assert!(
        more > 100.0 && (more - less).abs() < 0.05 && (less_from + less - more_from).abs() < 0.05,
        "{from:?} {width:?}"
    );
    let texts = texts(picture.svg());
    let at = |text: &str| texts.iter().find(|found| found.0 == text).unwrap_or_else(|| panic!("{text}: {texts:?}"));
    assert!((at("×1").1 - more_from).abs() < 0.05, "the axis");
    assert!(at("10 GB/s").1 > more_from + more && at("0.1 GB/s").1 > more_from);
    assert_eq!(at("Speed relative to one").0, bars.title);
    let (_, _, _, data) = pixels(&picture);
    let (r, g, b) = COLORS[1];
    assert!(data.chunks(3).filter(|pixel| *pixel == [r, g, b]).count() as f64 > less * 12.0 * 9.0);
    let many = Bars { groups: vec![("work".into(), Vec::new()); 1000], ..bars };
    assert!(matches!(many.draw(), Err(Error::Request(_))));
}

/// Linear light of an sRGB color.
fn light((r, g, b): (u8, u8, u8)) -> [f64; 3] {
    [r, g, b].map(|c| {
        let c = f64::from(c) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    })
}

/// CIE L*a*b* under D65.
fn lab(light: [f64; 3]) -> [f64; 3] {
    let dot = |row: [f64; 3]| row.iter().zip(light).map(|(a, b)| a * b).sum::<f64>();
    let f = |t: f64| if t > 216.0 / 24389.0 { t.cbrt() } else { (24389.0 / 27.0 * t + 16.0) / 116.0 };
    let x = f(dot([0.4124564, 0.3575761, 0.1804375]) / 0.95047);
    let y = f(dot([0.2126729, 0.7151522, 0.0721750]));
    let z = f(dot([0.0193339, 0.1191920, 0.9503041]) / 1.08883);
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// The color difference CIEDE2000, as Sharma, Wu and Dalal (2005) write it.
fn ciede2000(one: [f64; 3], two: [f64; 3]) -> f64 {
    let seventh = |c: f64| (c.powi(7) / (c.powi(7) + 25f64.powi(7))).sqrt();
    let g = 0.5 * (1.0 - seventh((one[1].hypot(one[2]) + two[1].hypot(two[2])) / 2.0));
    let polar = |[_, a, b]: [f64; 3]| ((a * (1.0 + g)).hypot(b), b.atan2(a * (1.0 + g)).to_degrees().rem_euclid(360.0));
    let ((c1, h1), (c2, h2)) = (polar(one), polar(two));
    let mut turn = h2 - h1;
    if turn.abs() > 180.0 {
        turn -= 360.0 * turn.signum();
    }
    let grey = c1 * c2 == 0.0;
    let (dl, dc) = (two[0] - one[0], c2 - c1);
    let dh = if grey { 0.0 } else { 2.0 * (c1 * c2).sqrt() * (turn / 2.0).to_radians().sin() };
    let (l, c) = ((one[0] + two[0]) / 2.0, (c1 + c2) / 2.0);
    let h = match ((h1 - h2).abs() <= 180.0, h1 + h2) {
        (_, sum) if grey => sum,
        (true, sum) => sum / 2.0,
        (false, sum) if sum < 360.0 => (sum + 360.0) / 2.0,
        (false, sum) => (sum - 360.0) / 2.0,
    };
    let cos = |degrees: f64| degrees.to_radians().cos();
    let t = 1.0 - 0.17 * cos(h - 30.0) + 0.24 * cos(2.0 * h) + 0.32 * cos(3.0 * h + 6.0) - 0.2 * cos(4.0 * h - 63.0);
    let sl = 1.0 + 0.015 * (l - 50.0).powi(2) / (20.0 + (l - 50.0).powi(2)).sqrt();
    let (sc, sh) = (1.0 + 0.045 * c, 1.0 + 0.015 * c * t);
    let rotation = -(60.0 * (-((h - 275.0) / 25.0).powi(2)).exp()).to_radians().sin() * 2.0 * seventh(c);
    let (dl, dc, dh) = (dl / sl, dc / sc, dh / sh);
    (dl * dl + dc * dc + dh * dh + rotation * dc * dh).sqrt()
}

/// Protanopia, deuteranopia and tritanopia, on linear light (Machado, Oliveira and Fernandes 2009,
/// severity 1), after eyes without them.
const EYES: [[[f64; 3]; 3]; 4] = [
    [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
];

#[test]
fn the_color_difference_is_that_of_its_published_test_data() {
    // Pairs 1, 7, 17, 25 and 31 of Sharma, Wu and Dalal.
    for (one, two, want) in [
        ([50.0, 2.6772, -79.7751], [50.0, 0.0, -82.7485], 2.0425),
        ([50.0, 0.0, 0.0], [50.0, -1.0, 2.0], 2.3669),
        ([50.0, 2.5, 0.0], [73.0, 25.0, -18.0], 27.1492),
        ([60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387], 1.2644),
        ([22.7233, 20.0904, -46.6940], [23.0331, 14.9730, -42.5619], 2.0373),
    ] {
        assert!((ciede2000(one, two) - want).abs() < 5e-5, "{one:?} {two:?}: {}", ciede2000(one, two));
    }
}

#[test]
fn any_two_colors_differ_for_any_eyes() {
    for eyes in EYES {
        let seen = |color: (u8, u8, u8)| {
            let light = light(color);
            let mixed = eyes.map(|row| row.iter().zip(light).map(|(a, b)| a * b).sum::<f64>().clamp(0.0, 1.0));
            lab(mixed)
        };
        for (at, one) in COLORS.iter().enumerate() {
            for two in &COLORS[..at] {
                let difference = ciede2000(seen(*one), seen(*two));
                assert!(difference >= 20.0, "{one:?} and {two:?}: {difference:.1}");
            }
        }
    }
}

#[test]
fn colors_and_text_stand_out_from_white() {
    let contrast =
        |color| 1.05 / (light(color).iter().zip([0.2126, 0.7152, 0.0722]).map(|(a, b)| a * b).sum::<f64>() + 0.05);
    for color in COLORS {
        assert!(contrast(color) >= 4.5, "{color:?}: {}", contrast(color));
    }
    // All text has the color of the root element.
    let svg = drawn(&chart(false, Vec::new()));
    assert!(attributes(svg.svg(), "svg", "fill") == ["#222"] && attributes(svg.svg(), "text", "fill").is_empty());
    assert!(contrast((0x22, 0x22, 0x22)) >= 4.5);
}

#[test]
fn styles_differ_in_color_marker_or_dashes() {
    let look = |style: usize| {
        let line =
            Chart { series: vec![Series::line("", style, vec![(1.0, 1.0), (2.0, 1.0)])], ..chart(false, Vec::new()) };
        let svg = drawn(&line).svg().to_string();
        let line = |element: &str| svg.lines().find(|line| line.starts_with(element)).unwrap_or_default().to_string();
        (line("<polyline"), line("<circle"), line("<polygon"))
    };
    let looks: Vec<_> = (0..36).map(look).collect();
    for (at, one) in looks.iter().enumerate() {
        assert!(!looks[..at].contains(one), "style {at}");
    }
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
    let mut sites = Table::new("sites", [Column::text("site"), Column::number("kl")]);
    [("0.attn", 3.0), ("0.mlp", 2.5)].into_iter().for_each(|(x, y)| sites.push([x.into(), y.into()]));
    let chart = sites.chart("KL", "site", &["kl"], Axis::log("nats")).expect("a chart");
    assert_eq!(
        (chart.x.names, chart.series[0].points.as_slice()),
        (vec!["0.attn".into(), "0.mlp".into()], &[(0.0, 3.0), (1.0, 2.5)][..])
    );
}
