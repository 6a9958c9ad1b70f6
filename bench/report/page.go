package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"

	"github.com/docker/go-units"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"

	"vfiouser/bench/result"
)

//go:embed page.html
var pageText string

var pageTemplate = template.Must(template.New("page").Parse(pageText))

// page is what the template shows.
type page struct {
	Title, Subtitle    string
	Quiet              bool
	Overall            string // geometric mean of the layers' ratios; empty: there are none
	Layers             []layerView
	Overview           template.HTML
	Latencies, Scaling []figure
	Report             *result.Report
	Facts, NoiseFacts  [][2]string
}

// figure is a chart with its drawing.
type figure struct {
	*chart
	SVG template.HTML
}

// layerView is a layer's part of the page.
type layerView struct {
	Name, Mean, Note string
	Grade            string // class of the page's style
	Rows             []rowView
}

// rowView is a row of the table.
type rowView struct {
	Name, Ours, Rate, Limit, LimitName, Ratio, Interval string
	P50, P99, Allocs, Syscalls                          string
	Missing, Grade                                      string
	Noisy, Barred                                       bool
	Bar, From, Width                                    float64 // percent of the bar's place
}

// Page writes the report as one HTML page that refers to nothing outside of it.
func Page(out io.Writer, r *result.Report) error {
	p := page{
		Title:    "vfiouser bench",
		Subtitle: fmt.Sprintf("commit %s%s · %s · %s run of %d rounds, %s", shortCommit(r.Environment.Commit), modified(&r.Environment), r.Started.Format("2 January 2006, 15:04 MST"), r.Mode, r.Rounds, Nanoseconds(r.Seconds*1e9)),
		Quiet:    quiet(r),
		Report:   r,
		Facts:    facts(r), NoiseFacts: noiseFacts(r),
	}
	ratios := ratiosOf(r)
	if len(ratios) > 0 {
		plot, err := overview(ratios)
		if err != nil {
			return err
		}
		if p.Overview, err = themed(plot, overviewWidth, overviewHeight(ratios)); err != nil {
			return err
		}
		var means []float64
		for _, l := range ratios {
			means = append(means, l.Mean)
		}
		p.Overall = ratioDigits(result.GeometricMean(means))
	}
	p.Layers = layerViews(r, ratios)
	var err error
	if p.Latencies, err = figures(latencies(r)); err != nil {
		return err
	}
	if p.Scaling, err = figures(scaling(r)); err != nil {
		return err
	}
	return pageTemplate.Execute(out, p)
}

// Picture writes the overview as a PNG on white, for where no HTML is shown; nothing, if no case
// has a limit.
func Picture(out io.Writer, r *result.Report) error {
	ratios := ratiosOf(r)
	if len(ratios) == 0 {
		return nil
	}
	p, err := overview(ratios)
	if err != nil {
		return err
	}
	c := vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(overviewWidth, overviewHeight(ratios)), vgimg.UseDPI(2*vgimg.DefaultDPI))}
	const edge = 8
	p.Draw(draw.Crop(draw.New(c), edge, -edge, edge, -edge))
	_, err = c.WriteTo(out)
	return err
}

func figures(charts []*chart) (list []figure, err error) {
	for _, c := range charts {
		svg, err := c.SVG()
		if err != nil {
			return nil, err
		}
		list = append(list, figure{c, svg})
	}
	return list, nil
}

func layerViews(r *result.Report, ratios []*layerRatios) (list []layerView) {
	at := map[string]int{}
	for i := range r.Cases {
		c := &r.Cases[i]
		name := result.Layer(c.Name)
		if _, ok := at[name]; !ok {
			at[name] = len(list)
			list = append(list, layerView{Name: name})
		}
		l := &list[at[name]]
		l.Rows = append(l.Rows, rowOf(c))
	}
	for _, l := range ratios {
		v := &list[at[l.Layer]]
		v.Mean, v.Grade = ratioDigits(l.Mean), grade(l.Mean)
		v.Note = fmt.Sprintf("%d beside a limit", len(l.ratios))
	}
	for i := range list {
		if list[i].Mean == "" {
			list[i].Note = fmt.Sprintf("%d without a limit", len(list[i].Rows))
		}
	}
	return list
}

func rowOf(c *result.Case) rowView {
	v := rowView{Name: c.Name, LimitName: c.Limit, Noisy: c.Noisy}
	if !c.Measured() {
		v.Missing = missingWord(c) + ": " + c.Missing
		return v
	}
	v.Ours, v.Rate = Value(c.Value.Median, c.Unit), rate(c)
	v.Allocs, v.Syscalls = counted(c, c.Allocs), counted(c, c.Syscalls)
	if l := c.Latency; l != nil {
		v.P50, v.P99 = Nanoseconds(l.P50), Nanoseconds(l.P99)
	}
	if q := c.Ratio; q != nil {
		v.Limit, v.Ratio = Nanoseconds(c.LimitValue.Median), ratioDigits(q.Median)
		v.Interval = ratioDigits(q.Low) + " – " + ratioDigits(q.High)
		v.Grade, v.Barred = grade(q.Median), true
		v.Bar, v.From = share(q.Median), share(q.Low)
		v.Width = max(share(q.High)-v.From, 0.5)
	}
	return v
}

// barEnd is the ratio that fills a bar's place.
const barEnd = 1.25

// share is where a ratio is in the bar's place, in percent.
func share(ratio float64) float64 { return math.Round(min(ratio/barEnd, 1)*1000) / 10 }

// grade is the colour of a ratio.
func grade(ratio float64) string {
	switch {
	case ratio >= 0.85:
		return "near"
	case ratio >= 0.5:
		return "middle"
	}
	return "far"
}

// quiet says whether nothing disturbed the run.
func quiet(r *result.Report) bool {
	for i := range r.Cases {
		if r.Cases[i].Noisy {
			return false
		}
	}
	n := &r.Noise
	return !n.Busy(r.Environment.CPUs) && !n.Robbed() && !n.Unsteady() && !n.Moved()
}

func shortCommit(commit string) string {
	const digits = 12
	return commit[:min(len(commit), digits)]
}

func facts(r *result.Report) [][2]string {
	e := &r.Environment
	pinned := "no"
	if e.Pinned {
		pinned = "driver and device on CPUs of their own"
	}
	return [][2]string{
		{"Processor", e.CPU}, {"CPUs", fmt.Sprintf("%d, GOMAXPROCS %d", e.CPUs, e.GOMAXPROCS)}, {"Memory", units.BytesSize(float64(e.Memory))},
		{"Machine", "hypervisor: " + e.Hypervisor}, {"Kernel", e.Kernel + ", " + e.Arch}, {"Go", e.Go}, {"Commit", e.Commit + modified(e)},
		{"Frequency governor", e.Governor}, {"Transparent huge pages", e.HugePages}, {"Pinned", pinned},
	}
}

func noiseFacts(r *result.Report) [][2]string {
	n := &r.Noise
	facts := [][2]string{
		{"Load average", fmt.Sprintf("%.2f before, %.2f after", n.LoadBefore, n.LoadAfter)},
		{"Stolen by the hypervisor", fmt.Sprintf("%.2f %% of the time", n.Stolen*100)},
		{"Fixed arithmetic", fmt.Sprintf("%s, varied by %.1f %% (10th to 90th percentile)", Nanoseconds(n.Spin.Median), n.SpinSpread*100)},
	}
	if n.Distance.Median > 0 {
		facts = append(facts, [2]string{"From processor to processor", fmt.Sprintf("%s both ways; farther in %.0f %% of the measurements", Nanoseconds(n.Distance.Median), n.Apart*100)})
	}
	return facts
}
