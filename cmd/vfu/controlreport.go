package main

import (
	"fmt"
	"strconv"
	"time"

	"vfiouser/block"
	"vfiouser/devices/nvme"
)

// What is said on the control socket; docs/control.md describes it. Members may be added.

// statusReport is the result of the request status.
type statusReport struct {
	PID     int            `json:"pid"`
	Uptime  float64        `json:"uptime"` // seconds
	Devices []servedReport `json:"devices"`
}

// servedReport is a device and what is behind it.
type servedReport struct {
	Device     string            `json:"device"` // where it is served
	Kind       string            `json:"kind"`
	Client     bool              `json:"client"` // is attached
	Subsystem  string            `json:"subsystem,omitempty"`
	Link       string            `json:"link,omitempty"`
	Namespaces []namespaceReport `json:"namespaces,omitempty"`
}

// formatReport is the format of a namespace.
type formatReport struct {
	BlockSize  int  `json:"block_size,omitempty"` // bytes
	Metadata   int  `json:"metadata,omitempty"`   // bytes
	Extended   bool `json:"extended,omitempty"`
	Protection int  `json:"protection,omitempty"`
	Guard      int  `json:"guard,omitempty"`       // bits, of protection information
	StorageTag int  `json:"storage_tag,omitempty"` // bits
}

func (f formatReport) format() nvme.Namespace {
	return nvme.Namespace{BlockSize: f.BlockSize, Metadata: f.Metadata, Extended: f.Extended, Protection: f.Protection,
		Guard: f.Guard, StorageTag: f.StorageTag}
}

func formatOf(f nvme.Namespace) formatReport {
	return formatReport{f.BlockSize, f.Metadata, f.Extended, f.Protection, f.Guard, f.StorageTag}
}

// namespaceReport is a namespace.
type namespaceReport struct {
	Namespace uint32 `json:"namespace"`
	Size      int64  `json:"size"` // bytes, without metadata
	formatReport
	Kind        string         `json:"kind"` // of the storage
	Backend     string         `json:"backend,omitempty"`
	Controllers []uint16       `json:"controllers"` // that it is attached to
	Filters     []filterReport `json:"filters"`
}

// filterReport is a filter in front of a namespace's storage.
type filterReport struct {
	Filter   int           `json:"filter"` // place, 0 for the outermost
	Kind     string        `json:"kind"`
	Settings string        `json:"settings"`
	Hits     uint64        `json:"hits"`
	Stats    []statsReport `json:"stats,omitempty"`
	Cache    *cacheReport  `json:"cache,omitempty"`
}

// cacheReport is the state of a volatile cache.
type cacheReport struct {
	Power     bool   `json:"power"`
	Unflushed int64  `json:"unflushed"` // bytes that a power cut would take
	Cuts      uint64 `json:"cuts"`
}

// statsReport is what the filter stats has counted of one operation.
type statsReport struct {
	Operation string  `json:"operation"`
	Requests  uint64  `json:"requests"`
	Errors    uint64  `json:"errors"`
	Bytes     uint64  `json:"bytes"`
	InFlight  int64   `json:"in_flight"`
	Mean      float64 `json:"mean"`    // microseconds
	Longest   float64 `json:"longest"` // microseconds
	// Took counts the requests by how long they took: less than 1, 2, 4, ... microseconds.
	Took []uint64 `json:"took"`
}

func (s *subsystem) reports() []namespaceReport {
	reports := []namespaceReport{}
	for _, n := range s.made.Namespaces() {
		b, err := s.made.Backend(n.ID)
		if err != nil {
			continue // it has been removed meanwhile
		}
		reports = append(reports, s.report(n, b))
	}
	return reports
}

func (s *subsystem) report(n nvme.NamespaceInfo, b block.Backend) namespaceReport {
	s.mu.Lock()
	text := s.texts[b]
	s.mu.Unlock()
	format := formatOf(n.Format)
	if format.Protection == 0 {
		format.Guard = 0 // there is none
	}
	return namespaceReport{
		Namespace: n.ID, Size: int64(n.Blocks) * int64(n.BlockSize), Kind: n.Kind, formatReport: format,
		Backend: text, Controllers: n.Controllers, Filters: filterReports(b),
	}
}

func filterReports(b block.Backend) []filterReport {
	reports := []filterReport{}
	for i, layer := range block.Stack(b) {
		switch f := layer.(type) {
		case *block.Filter:
			reports = append(reports, reportFilter(i, f))
		case *block.Volatile:
			reports = append(reports, reportVolatile(i, f))
		}
	}
	return reports
}

func reportFilter(i int, f *block.Filter) filterReport {
	r := filterReport{Filter: i, Kind: f.Kind(), Settings: f.Settings(), Hits: f.Hits()}
	stats, ok := f.Stats()
	for op := range stats {
		if s := &stats[op]; ok && s.Requests+uint64(s.InFlight) > 0 {
			r.Stats = append(r.Stats, reportStats(block.Op(op), s))
		}
	}
	return r
}

func reportStats(op block.Op, s *block.OpStats) statsReport {
	microseconds := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	r := statsReport{Operation: op.String(), Requests: s.Requests, Errors: s.Errors, Bytes: s.Bytes, InFlight: s.InFlight,
		Longest: microseconds(s.Longest), Took: s.Took[:]}
	if s.Requests > 0 {
		r.Mean = microseconds(s.Total) / float64(s.Requests)
	}
	return r
}

func reportVolatile(i int, v *block.Volatile) filterReport {
	st, opt := v.Stats(), v.Options()
	return filterReport{Filter: i, Kind: volatileKind,
		Settings: fmt.Sprintf("keep=%.10g%%:size=%s", opt.Keep*100, sizeText(opt.Size)),
		Cache:    &cacheReport{Power: !st.Off, Unflushed: st.Cached, Cuts: st.Cuts}}
}

// sizeText is a size as backends' texts have it.
func sizeText(n int64) string {
	unit := 0
	for ; unit < 4 && n%1024 == 0; unit++ {
		n /= 1024
	}
	return strconv.FormatInt(n, 10) + [...]string{"", "K", "M", "G", "T"}[unit]
}
