package result

import "time"

// Schema is the version of the JSON. Members may be added to it; a change of their meaning
// gets another number.
const Schema = 1

// Report is a run.
type Report struct {
	Schema      int         `json:"schema"`
	Started     time.Time   `json:"started"`
	Seconds     float64     `json:"seconds"` // that the run took
	Mode        string      `json:"mode"`    // quick, standard or full
	Rounds      int         `json:"rounds"`
	Environment Environment `json:"environment"`
	Noise       Noise       `json:"noise"`
	Cases       Cases       `json:"cases"`
}

// Cases are those of a run, in the order of the suite.
type Cases []Case

// Environment is the machine and the build.
type Environment struct {
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`   // that the process may use
	Memory     int64  `json:"memory"` // bytes; 0: unknown
	Kernel     string `json:"kernel"`
	Arch       string `json:"arch"`
	Go         string `json:"go"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	Commit     string `json:"commit"`
	Modified   bool   `json:"modified"` // the build has changes that the commit has not
	Governor   string `json:"governor"`
	Hypervisor string `json:"hypervisor"`
	HugePages  string `json:"transparent_huge_pages"`
	Pinned     bool   `json:"pinned"` // driver and device had CPUs of their own
}

// Noise is what disturbed the run.
type Noise struct {
	LoadBefore float64 `json:"load_before"` // load average of a minute
	LoadAfter  float64 `json:"load_after"`
	Stolen     float64 `json:"stolen"` // share of the time that the hypervisor took, 0 to 1
	Spin       Summary `json:"spin_ns"`
	SpinSpread float64 `json:"spin_spread"` // from the 10th to the 90th percentile, over the median
	// Distance is that between the CPUs of driver and device, as a cache line goes both ways; Apart the share
	// of measurements in which it was larger than at best.
	Distance Summary  `json:"distance_ns"`
	Apart    float64  `json:"apart"`
	Notes    []string `json:"notes"` // what to make of it, in words
}

// Case is what came of a case.
type Case struct {
	Name  string `json:"name"`
	Unit  string `json:"unit"` // "ns/op", or a gauge's
	Bytes int    `json:"bytes,omitempty"`
	Limit string `json:"limit,omitempty"`
	// Operations are those of one sample.
	Operations int `json:"operations,omitempty"`
	// Samples are the values, one for each round; LimitSamples those of the limit, in the
	// same round, next to it.
	Samples      []float64 `json:"samples,omitempty"`
	LimitSamples []float64 `json:"limit_samples,omitempty"`
	// What follows from the samples. Ratio is the limit's over ours: 1 is at the limit.
	Value      Summary  `json:"value"`
	LimitValue *Summary `json:"limit_value,omitempty"`
	Ratio      *Summary `json:"ratio,omitempty"`
	Noisy      bool     `json:"noisy"` // an interval is wider than a tenth

	Latency    *Latency `json:"latency,omitempty"`
	Allocs     *float64 `json:"allocs,omitempty"` // per operation; absent: not counted
	AllocBytes *float64 `json:"alloc_bytes,omitempty"`
	Syscalls   *float64 `json:"syscalls,omitempty"`
	// Missing says why there are no samples; Failed that this is a failure, not something
	// that the machine lacks.
	Missing string `json:"missing,omitempty"`
	Failed  bool   `json:"failed,omitempty"`
}

// Latency is that of single operations over all rounds, in nanoseconds.
type Latency struct {
	Count int64   `json:"count"`
	Mean  float64 `json:"mean"`
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	Max   float64 `json:"max"`
	// P50Samples and P99Samples are the percentiles of each round. Spread follows from the former.
	P50Samples []float64 `json:"p50_samples,omitempty"`
	P99Samples []float64 `json:"p99_samples,omitempty"`
	Spread     Summary   `json:"p50_of_rounds"`
}

// Summary is a median with its confidence interval.
type Summary struct {
	Median     float64 `json:"median"`
	Low        float64 `json:"low"`
	High       float64 `json:"high"`
	Confidence float64 `json:"confidence"` // of the interval; at least 0.95 but for too few samples
}

// UnitTime is the unit of all cases but gauges.
const UnitTime = "ns/op"
