package report

import (
	"image/color"
	"math"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"vfiouser/bench/result"
)

// layerRatios are the ratios of a layer's cases to their limits.
type layerRatios struct {
	Layer  string
	ratios []float64
	Mean   float64 // geometric
}

// ratiosOf are those of all layers that have any, in the order of the cases.
func ratiosOf(r *result.Report) (list []*layerRatios) {
	known := map[string]*layerRatios{}
	for i := range r.Cases {
		c := &r.Cases[i]
		if c.Ratio == nil || !(c.Ratio.Median > 0) {
			continue
		}
		name := result.Layer(c.Name)
		l := known[name]
		if l == nil {
			l = &layerRatios{Layer: name}
			known[name] = l
			list = append(list, l)
		}
		l.ratios = append(l.ratios, c.Ratio.Median)
	}
	for _, l := range list {
		l.Mean = result.GeometricMean(l.ratios)
	}
	return list
}

const overviewRow = 24 // height of a layer

// overviewHeight leaves room for the axis.
func overviewHeight(layers []*layerRatios) vg.Length { return vg.Length(len(layers)*overviewRow + 46) }

const overviewWidth = 860

// overview is the main picture: a dot for each case, how near its limit it is, and a bar for
// the mean of each layer.
func overview(layers []*layerRatios) (*plot.Plot, error) {
	p := styled()
	p.X.Label.Text = "ratio to the limit"
	p.X.Scale = plot.LogScale{}
	all := []float64{1}
	names := make([]plot.Tick, len(layers))
	for i, l := range layers {
		all = append(all, l.ratios...)
		names[i] = plot.Tick{Value: row(i, layers), Label: l.Layer}
	}
	(&axis{format: ratioDigits}).fit(&p.X, all, 1.3)
	p.Y.Min, p.Y.Max = -0.5, float64(len(layers))-0.5
	p.Y.LineStyle.Width, p.Y.Tick.Length = 0, 0
	p.Y.Tick.Marker = plot.ConstantTicks(names)
	p.Y.Tick.Label.Color = ink

	grid := plotter.NewGrid()
	grid.Vertical, grid.Horizontal = draw.LineStyle{Color: grid1, Width: 1}, draw.LineStyle{}
	p.Add(grid)
	if err := addLine(p, draw.LineStyle{Color: muted, Width: 1.2, Dashes: []vg.Length{4, 3}},
		plotter.XY{X: 1, Y: p.Y.Min}, plotter.XY{X: 1, Y: p.Y.Max}); err != nil {
		return nil, err
	}
	for i, l := range layers {
		y := row(i, layers)
		style := draw.LineStyle{Color: faint, Width: 1}
		if err := addLine(p, style, plotter.XY{X: p.X.Min, Y: y}, plotter.XY{X: l.Mean, Y: y}); err != nil {
			return nil, err
		}
		dots := make(plotter.XYs, len(l.ratios))
		for k, v := range l.ratios {
			// Next to each other where they would be on top of each other.
			dots[k] = plotter.XY{X: v, Y: y + 0.22*math.Sin(float64(k)*2.4)}
		}
		if err := addDots(p, dots, hues[0], 2.4, draw.RingGlyph{}); err != nil {
			return nil, err
		}
		if err := addDots(p, plotter.XYs{{X: l.Mean, Y: y}}, hues[1], 5, draw.CircleGlyph{}); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// row is where a layer is: the first at the top.
func row(i int, layers []*layerRatios) float64 { return float64(len(layers) - 1 - i) }

func addLine(p *plot.Plot, style draw.LineStyle, points ...plotter.XY) error {
	l, err := plotter.NewLine(plotter.XYs(points))
	if err == nil {
		l.LineStyle = style
		p.Add(l)
	}
	return err
}

func addDots(p *plot.Plot, at plotter.XYs, c color.Color, radius vg.Length, shape draw.GlyphDrawer) error {
	s, err := plotter.NewScatter(at)
	if err == nil {
		s.GlyphStyle = draw.GlyphStyle{Color: c, Radius: radius, Shape: shape}
		p.Add(s)
	}
	return err
}
