package report

import (
	"bytes"
	"cmp"
	"html/template"
	"image/color"
	"math"
	"slices"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// chart is a picture of curves, both of whose axes are logarithmic.
type chart struct {
	Title string
	layer string
	x, y  axis
	Lines []line
}

// axis is a label, and how its values are written.
type axis struct {
	label  string
	format func(float64) string
	// only marks the values that occur, not round ones.
	only bool
}

// line is a curve. Color is an index of hues. What is dashed goes with the line of the same colour.
type line struct {
	Name   string
	Color  int
	Dashed bool
	points plotter.XYs
}

// maxLines is how many colours a chart tells apart.
const maxLines = 4

const (
	chartWidth  = 350
	chartHeight = 220
	// Text is this large, in the units of the width.
	textSize = 11
)

// styled makes a plot that looks like the page.
func styled() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	for _, style := range []*text.Style{&p.X.Label.TextStyle, &p.Y.Label.TextStyle, &p.X.Tick.Label, &p.Y.Tick.Label} {
		style.Font.Variant, style.Font.Size, style.Color = "Sans", textSize, muted
	}
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.LineStyle.Color, a.LineStyle.Width = faint, 1
		a.Tick.LineStyle.Color, a.Tick.Length = faint, 3
		a.Padding = 2
	}
	return p
}

// SVG draws the chart. The caller has at least one line, of positive numbers.
func (c *chart) SVG() (template.HTML, error) {
	p := styled()
	p.X.Label.Text, p.Y.Label.Text = c.x.label, c.y.label
	p.X.Scale, p.Y.Scale = plot.LogScale{}, plot.LogScale{}
	var xs, ys []float64
	for _, l := range c.Lines {
		for _, at := range l.points {
			xs, ys = append(xs, at.X), append(ys, at.Y)
		}
	}
	c.x.fit(&p.X, xs, 1.15)
	c.y.fit(&p.Y, ys, 1.3)
	grid := plotter.NewGrid()
	grid.Horizontal = draw.LineStyle{Color: grid1, Width: 1}
	grid.Vertical = draw.LineStyle{}
	p.Add(grid)
	for _, l := range c.Lines {
		curve, dots, err := plotter.NewLinePoints(l.points)
		if err != nil {
			return "", err
		}
		curve.LineStyle = draw.LineStyle{Color: hues[l.Color%len(hues)], Width: 1.8}
		if l.Dashed {
			curve.LineStyle.Width, curve.LineStyle.Dashes = 1.3, []vg.Length{4, 3}
			p.Add(curve)
			continue
		}
		dots.GlyphStyle = draw.GlyphStyle{Color: curve.Color, Radius: 2.6, Shape: draw.CircleGlyph{}}
		p.Add(curve, dots)
	}
	return themed(p, chartWidth, chartHeight)
}

// fit sets the range of an axis around values and its marks.
func (a *axis) fit(to *plot.Axis, values []float64, room float64) {
	low, high := slices.Min(values)/room, slices.Max(values)*room
	if high/low < 2 { // else the least noise fills the picture
		middle := math.Sqrt(low * high)
		low, high = middle/math.Sqrt2, middle*math.Sqrt2
	}
	to.Min, to.Max = low, high
	marks := logMarks(low, high)
	if a.only {
		marks = apart(slices.Compact(slices.Sorted(slices.Values(values))), math.Pow(high/low, 0.11))
	}
	ticks := make([]plot.Tick, len(marks))
	for i, v := range marks {
		ticks[i] = plot.Tick{Value: v, Label: bare(a.format(v))}
	}
	to.Tick.Marker = plot.ConstantTicks(ticks)
}

// bare drops the zeros that say how exact a value is, which a round one does not need.
func bare(s string) string {
	number, unit, _ := strings.Cut(s, " ")
	if strings.Contains(number, ".") {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	if unit == "" {
		return number
	}
	return number + " " + unit
}

// apart leaves out values that are nearer to the one before than a factor, and so their texts to
// each other; but not the last.
func apart(values []float64, factor float64) (kept []float64) {
	for i, v := range values {
		if len(kept) > 0 && v < kept[len(kept)-1]*factor {
			if i < len(values)-1 || len(kept) == 1 {
				continue
			}
			kept = kept[:len(kept)-1]
		}
		kept = append(kept, v)
	}
	return kept
}

func everyOther(values []float64) (half []float64) {
	for i := 0; i < len(values); i += 2 {
		half = append(half, values[i])
	}
	return half
}

// logMarks are round numbers between two positive ones: the coarsest that are enough.
func logMarks(low, high float64) []float64 {
	var marks []float64
	for _, steps := range [][]float64{{1}, {1, 3}, {1, 2, 5}, {1, 1.5, 2, 3, 4, 5, 6, 8}, {1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 9}} {
		marks = nil
		for decade := math.Floor(math.Log10(low)); decade <= math.Log10(high); decade++ {
			for _, step := range steps {
				if v := step * math.Pow(10, decade); v >= low && v <= high {
					marks = append(marks, v)
				}
			}
		}
		if len(marks) >= 4 {
			break
		}
	}
	for len(marks) > 9 {
		marks = everyOther(marks)
	}
	return marks
}

// themed draws a plot as an SVG whose colours are the page's.
func themed(p *plot.Plot, width, height vg.Length) (template.HTML, error) {
	c := vgsvg.New(width, height)
	const edge = 8 // for half of the last mark's text
	p.Draw(draw.Crop(draw.New(c), 0, -edge, 0, -edge/2))
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return "", err
	}
	return theme(b.String()), nil
}

// sortPoints brings a curve into the order of x.
func sortPoints(points plotter.XYs) {
	slices.SortFunc(points, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
}

// Colours as a light page has them; theme replaces each by the page's own.
var (
	ink   = color.NRGBA{0x1b, 0x25, 0x33, 0xff}
	muted = color.NRGBA{0x5b, 0x67, 0x78, 0xff}
	faint = color.NRGBA{0xb6, 0xbf, 0xcb, 0xff}
	grid1 = color.NRGBA{0xe6, 0xea, 0xef, 0xff}
	hues  = []color.Color{
		color.NRGBA{0x1f, 0x6f, 0xeb, 0xff}, color.NRGBA{0xd9, 0x6b, 0x06, 0xff},
		color.NRGBA{0x0e, 0x8a, 0x5f, 0xff}, color.NRGBA{0x8b, 0x45, 0xd6, 0xff},
	}
)
