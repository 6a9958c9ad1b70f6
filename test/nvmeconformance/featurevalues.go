package nvmeconformance

import (
	"encoding/binary"
	"fmt"
	"time"

	"vfiouser/devices/nvme/spec"
)

// featureValueChecks are those of what single features mean.
func featureValueChecks() (checks []Check) {
	add := func(section, rule string, run func(t *T)) { checks = append(checks, Check{section, rule, run, false}) }
	set := func(t *T, id uint8, v uint32) completion { return t.do(t.admin, setFeature(id, 0, v)) }
	get := func(t *T, id uint8, cdw11 uint32) completion {
		cmd := getFeature(id, 0, 0)
		cmd.CDW11 = cdw11
		return t.do(t.admin, cmd)
	}

	const queues = "Base 2.0, 5.27.1.5"
	add(queues, "Number of Queues, once there are I/O queues: Command Sequence Error", func(t *T) {
		t.status("Set Features", set(t, spec.FeatNumberOfQueues, 0), never(spec.CommandSequenceError))
	})
	without := func(t *T) {
		t.must("Delete I/O Submission Queue", t.do(t.admin, deleteSQ(1)))
		t.must("Delete I/O Completion Queue", t.do(t.admin, deleteCQ(1)))
	}
	add(queues, "Number of Queues answers what was allocated, as Get Features does", func(t *T) {
		without(t)
		got := t.must("Set Features", set(t, spec.FeatNumberOfQueues, 3|3<<16)).DW0
		equal(t, "Get Features", get(t, spec.FeatNumberOfQueues, 0).DW0, got)
	})
	add(queues, "Number of Queues takes more than there are, and allocates fewer", func(t *T) {
		without(t)
		got := t.must("Set Features", set(t, spec.FeatNumberOfQueues, 0xfffe|0xfffe<<16)).DW0
		if got&0xffff >= 0xfffe || got>>16 >= 0xfffe {
			t.errorf("allocated %#x", got)
		}
	})

	const temperature = "Base 2.0, 5.27.1.3"
	add(temperature, "the over threshold of the composite temperature is WCTEMP by default", func(t *T) {
		equal(t, "threshold", t.must("Get Features", get(t, spec.FeatTemperature, 0)).DW0&0xffff, uint32(t.u16(t.identity, 266)))
	})
	add(temperature, "the under threshold of the composite temperature is 0 by default", func(t *T) {
		equal(t, "threshold", t.must("Get Features", get(t, spec.FeatTemperature, 1<<20)).DW0&0xffff, 0)
	})
	add(temperature, "the two thresholds are apart", func(t *T) {
		t.must("Set Features", set(t, spec.FeatTemperature, 0x160))
		t.must("Set Features", set(t, spec.FeatTemperature, 1<<20|0x101))
		equal(t, "over", get(t, spec.FeatTemperature, 0).DW0&0xffff, 0x160)
		equal(t, "under", get(t, spec.FeatTemperature, 1<<20).DW0&0xffff, 0x101)
	})
	add(temperature, "sensor Fh sets the thresholds of all sensors", func(t *T) {
		t.must("Set Features", set(t, spec.FeatTemperature, 0xf<<16|0x15f))
		equal(t, "over", get(t, spec.FeatTemperature, 0).DW0&0xffff, 0x15f)
	})
	for _, k := range []struct {
		what  string
		cdw11 uint32
	}{{"the reserved sensor 9", 9 << 16}, {"the reserved kind 2", 2 << 20}, {"the reserved kind 3", 3 << 20}} {
		add(temperature, "Get Features of "+k.what+": Invalid Field in Command", func(t *T) {
			t.status("Get Features", get(t, spec.FeatTemperature, k.cdw11), never(spec.InvalidField))
		})
	}

	const vector = "Base 2.0, 5.27.1.7"
	add(vector, "coalescing is set for a vector alone", func(t *T) {
		t.need(t.vectors() >= 3, "third vector")
		t.must("Set Features", set(t, spec.FeatInterruptVector, 1<<16|2))
		equal(t, "vector 2", get(t, spec.FeatInterruptVector, 2).DW0, 1<<16|2)
		equal(t, "vector 1", get(t, spec.FeatInterruptVector, 1).DW0, 1)
		t.must("Set Features", set(t, spec.FeatInterruptVector, 2))
		equal(t, "vector 2", get(t, spec.FeatInterruptVector, 2).DW0, 2)
	})
	add(vector, "Get Features of a vector that does not exist: Invalid Field in Command", func(t *T) {
		t.status("Get Features", get(t, spec.FeatInterruptVector, t.vectors()), never(spec.InvalidField))
	})
	add(vector, "the last vector that exists can be configured", func(t *T) {
		last := t.vectors() - 1
		t.must("Set Features", set(t, spec.FeatInterruptVector, 1<<16|last))
		equal(t, "the last vector", get(t, spec.FeatInterruptVector, last).DW0, 1<<16|last)
	})

	const recovery = "NVM 1.0, 4.1.3.2"
	add(recovery, "Error Recovery is each namespace's own", func(t *T) {
		t.need(len(t.namespaces) >= 2, "second namespace")
		a, b := t.namespaces[0].id, t.namespaces[1].id
		t.must("Set Features", t.do(t.admin, setFeature(spec.FeatErrorRecovery, a, 11)))
		t.must("Set Features", t.do(t.admin, setFeature(spec.FeatErrorRecovery, b, 22)))
		equal(t, "the first namespace", t.do(t.admin, getFeature(spec.FeatErrorRecovery, 0, a)).DW0, 11)
		equal(t, "the second namespace", t.do(t.admin, getFeature(spec.FeatErrorRecovery, 0, b)).DW0, 22)
	})
	add(recovery, "Error Recovery set for NSID FFFFFFFFh is set for all namespaces", func(t *T) {
		t.must("Set Features", t.do(t.admin, setFeature(spec.FeatErrorRecovery, spec.BroadcastNSID, 33)))
		for _, ns := range t.namespaces {
			equal(t, fmt.Sprintf("namespace %d", ns.id), t.do(t.admin, getFeature(spec.FeatErrorRecovery, 0, ns.id)).DW0, 33)
		}
	})
	add(recovery, "DULBE can be set if and only if NSFEAT announces it", func(t *T) {
		ns := &t.namespaces[0]
		c := t.do(t.admin, setFeature(spec.FeatErrorRecovery, ns.id, 1<<16))
		if ns.data[24]&4 != 0 {
			t.status("Set Features", c, spec.Success)
		} else {
			t.status("Set Features", c, never(spec.InvalidField))
		}
	})
	add("Base 2.0, 5.27.1.4", "the volatile write cache is enabled by default", func(t *T) {
		t.need(t.identity[525]&1 != 0, "volatile write cache")
		equal(t, "WCE", get(t, spec.FeatVolatileWriteCache, 0).DW0, 1)
	})
	add("Base 2.0, 5.27.1.4", "the volatile write cache cannot be set where there is none: Invalid Field in Command", func(t *T) {
		t.need(t.identity[525]&1 == 0, "controller without volatile write cache")
		t.status("Set Features", set(t, spec.FeatVolatileWriteCache, 1), never(spec.InvalidField))
	})
	add("Base 2.0, 5.27.1.4", "data written with the cache disabled reads back", func(t *T) {
		t.need(t.identity[525]&1 != 0, "volatile write cache")
		t.must("Set Features", set(t, spec.FeatVolatileWriteCache, 0))
		want := t.write(0, 2, 9)
		equal(t, "the same data", string(t.read(0, 2)) == string(want), true)
	})
	return append(checks, timestampChecks()...)
}

func timestampChecks() (checks []Check) {
	add := func(rule string, run func(t *T)) {
		checks = append(checks, Check{"Base 2.0, 5.27.1.11", rule, func(t *T) {
			t.need(t.oncs(6), "timestamp")
			run(t)
		}, false})
	}
	get := func(t *T) uint64 {
		cmd := getFeature(spec.FeatTimestamp, 0, 0)
		data := t.with(cmd, 8)
		t.must("Get Features", t.do(t.admin, cmd))
		return t.u64(data, 0)
	}
	set := func(t *T, v uint64) {
		cmd := setFeature(spec.FeatTimestamp, 0, 0)
		binary.LittleEndian.PutUint64(t.with(cmd, 8), v)
		t.must("Set Features", t.do(t.admin, cmd))
	}
	const millis = 1<<48 - 1
	add("the timestamp counts on from what was set", func(t *T) {
		now := uint64(time.Now().UnixMilli())
		set(t, now)
		if v := get(t) & millis; v < now || v > now+uint64(t.opts.Patience.Milliseconds()) {
			t.errorf("set %d, read %d", now, v)
		}
	})
	add("the origin is 001b after Set Features", func(t *T) {
		set(t, 1000)
		equal(t, "origin", get(t)>>49&7, 1)
	})
	add("the timestamp never goes back", func(t *T) {
		a := get(t) & millis
		b := get(t) & millis
		if b < a {
			t.errorf("%d behind %d", b, a)
		}
	})
	add("the reserved byte reads 0", func(t *T) {
		set(t, 1<<56|5)
		equal(t, "byte 7", get(t)>>56, 0)
	})
	add("bits 63:48 that are set are not taken for time", func(t *T) {
		set(t, 0xffff<<48|77)
		if v := get(t) & millis; v < 77 || v > 77+uint64(t.opts.Patience.Milliseconds()) {
			t.errorf("set 77, read %d", v)
		}
	})
	return checks
}
