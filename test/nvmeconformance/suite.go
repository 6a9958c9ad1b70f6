package nvmeconformance

import (
	"context"
	"fmt"
	"regexp"
	"time"

	"vfiouser/client"
)

// Check is a rule and how it is checked.
type Check struct {
	Section string // of the specification, such as "Base 2.0, 3.1.3.1"
	Rule    string
	run     func(*T)
	raw     bool // it begins with a controller that is disabled
}

// Name is the section and the rule.
func (c *Check) Name() string { return c.Section + ": " + c.Rule }

// sections lists the checks of every file.
var sections = []func() []Check{
	registerChecks, adminQueueChecks, stateChecks, shutdownChecks, createQueueChecks, deleteQueueChecks, queueChecks,
	doorbellChecks, identifyControllerChecks, announcementChecks, identifyNamespaceChecks, identifyListChecks,
	featureChecks, featureValueChecks, logChecks, logContentChecks, eventChecks, adminChecks,
	ioChecks, prpChecks, sglChecks, dataChecks, rangeChecks, copyChecks, uncorrectableChecks, errorLogChecks, smartChecks,
	reservationChecks, protectionChecks, fusedChecks, firmwareChecks, securityChecks, directiveChecks,
	managementChecks, formatChecks, sanitizeChecks, selfTestChecks,
}

// Checks are all checks, in the order in which they run.
func Checks() []Check {
	var all []Check
	for _, section := range sections {
		all = append(all, section()...)
	}
	return all
}

// Doorbells says how the suite rings I/O queues.
type Doorbells int

const (
	Messages Doorbells = iota // a REGION_WRITE for each
	Mapped                    // through a mapping of BAR0; the admin queue too
	Shadow                    // Doorbell Buffer Config
)

// Options say what is run and how.
type Options struct {
	Doorbells Doorbells
	Match     *regexp.Regexp // names of checks to run; nil: all
	Skip      *regexp.Regexp // names of checks to leave out; nil: none
	Patience  time.Duration  // for what has to come; 0: 10 s
}

// Outcome is what became of a check.
type Outcome int

const (
	Passed Outcome = iota
	Failed
	Skipped // the controller does not have what it is about
)

func (o Outcome) String() string { return [...]string{"pass", "FAIL", "skip"}[o] }

// Result is the outcome of a check. Detail is why it failed or was skipped.
type Result struct {
	Check   Check
	Outcome Outcome
	Detail  string
}

// Report is what came of a run.
type Report []Result

// Count is how many checks had an outcome.
func (r Report) Count(o Outcome) (n int) {
	for i := range r {
		if r[i].Outcome == o {
			n++
		}
	}
	return n
}

// Run runs the checks against the controller that dev is attached to. It calls each with every
// result as it comes, unless it is nil. The error is that of a session that ended, or of a
// controller that cannot be brought up; the report holds what was found before.
func Run(ctx context.Context, dev *client.Device, o Options, each func(Result)) (Report, error) {
	if o.Patience == 0 {
		o.Patience = 10 * time.Second
	}
	r, err := newRig(ctx, dev, &o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	var report Report
	for _, check := range Checks() {
		if o.Match != nil && !o.Match.MatchString(check.Name()) || o.Skip != nil && o.Skip.MatchString(check.Name()) {
			continue
		}
		result := r.run(&check)
		report = append(report, result)
		if each != nil {
			each(result)
		}
		if err := dev.Err(); err != nil {
			return report, fmt.Errorf("the session ended in %q: %w", check.Name(), err)
		}
	}
	return report, nil
}
