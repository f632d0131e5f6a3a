//! The scaling plots, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::error::{Error, step};
use crate::report::Series;

/// Writes `scaling-AXIS.svg` for each axis among the series.
pub fn write(dir: &Path, series: &[Series]) -> Result<(), Error> {
    step("make the directory of the plots", std::fs::create_dir_all(dir))?;
    let mut axes: Vec<&str> = series.iter().map(|series| series.axis).collect();
    axes.dedup();
    for axis in axes {
        let path = dir.join(format!("scaling-{}.svg", axis.replace(' ', "-")));
        let curves: Vec<&Series> = series.iter().filter(|series| series.axis == axis).collect();
        draw(&path, axis, &curves).map_err(|error| Error::new(format!("draw {}", path.display()), error))?;
        eprintln!("wrote {}", path.display());
    }
    Ok(())
}

fn draw(path: &Path, axis: &str, curves: &[&Series]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|curve| curve.points.iter());
    let low = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let high = points().map(|point| point.0).fold(low * 2.0, f64::max);
    let most = points().map(|point| point.1).fold(100.0, f64::max);
    let area = SVGBackend::new(path, (720, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("Cost of an operation over {axis}"), ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d((low..high * 1.1).log_scale(), 0.0..most * 1.5)?;
    let mut grid = chart.configure_mesh();
    grid.max_light_lines(1)
        .x_desc(axis)
        .y_desc("nanoseconds, median")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .draw()?;
    for (curve, colour) in curves.iter().zip([BLUE, RED, GREEN]) {
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
        let legend = move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(curve.what.as_str()).legend(legend);
        chart.draw_series(curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}
