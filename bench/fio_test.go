package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	device "vfiouser/devices/nvme"
	driver "vfiouser/drivers/nvme"
)

const (
	fioSize   = 256 << 20 // of the file, bytes
	fioRounds = 7
	fioTime   = 500 * time.Millisecond // of a round
)

// BenchmarkFileAgainstFio compares random I/O through an NVMe device on a file, the device on
// one core and the driver on the other, with fio's on the same file, with the same engine,
// depth and block size, on the device's core. Rounds of both alternate; the figures are
// medians, and ratio is that of the device's rate to fio's of the same round.
func BenchmarkFileAgainstFio(b *testing.B) {
	fio, err := exec.LookPath("fio")
	if err != nil {
		b.Skip("fio is not installed")
	}
	for _, direct := range []bool{false, true} {
		for _, write := range []bool{false, true} {
			for _, size := range []int{4 << 10, 64 << 10} {
				for _, depth := range []int{1, 32} {
					job := fioJob{fio: fio, direct: direct, write: write, size: size, depth: depth}
					b.Run(job.String(), job.compare)
				}
			}
		}
	}
}

// fioJob is one comparison.
type fioJob struct {
	fio, path     string
	direct, write bool
	size, depth   int
}

func (j fioJob) String() string {
	cache, op := "cached", "read"
	if j.direct {
		cache = "direct"
	}
	if j.write {
		op = "write"
	}
	return fmt.Sprintf("%s/%s/%dk/depth=%d", cache, op, j.size>>10, j.depth)
}

func (j fioJob) compare(b *testing.B) {
	j.path = filepath.Join(b.TempDir(), "disk")
	if err := os.WriteFile(j.path, make([]byte, fioSize), 0o600); err != nil {
		b.Fatal(err)
	}
	backend := "file:" + j.path + ",engine=uring"
	if j.direct {
		backend += ",direct"
	}
	r, err := newNVMe(benchEnv(b), device.Mmap, 4096, backend)
	if err != nil {
		b.Fatal(err)
	}
	pin(b, 1)
	q, err := r.ctrl.NewQueue(context.Background(), driver.QueueConfig{Depth: j.depth, BufferSize: j.size})
	if err != nil {
		b.Fatal(err)
	}
	defer q.Close()
	if err := fill(r.ns); err != nil {
		b.Fatal(err)
	}
	if err := r.ns.Flush(context.Background()); err != nil {
		b.Fatal(err)
	}
	var ours, theirs, ratios []float64
	for range fioRounds {
		a, t := j.run(b, r, q), j.runFio(b)
		ours, theirs, ratios = append(ours, a), append(theirs, t), append(ratios, a/t)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ours)/1e3, "kIOPS")
	b.ReportMetric(median(theirs)/1e3, "fio-kIOPS")
	b.ReportMetric(median(ratios), "ratio")
}

// run is the rate of a round through the device, per second.
func (j fioJob) run(b *testing.B, r *nvmeRig, q *driver.Queue) float64 {
	submit := q.Read
	if j.write {
		submit = q.Write
	}
	blocks := uint32(j.size / r.ns.BlockSize())
	places := r.ns.Blocks() / uint64(blocks)
	post := func(tag uint16) {
		if err := submit(tag, r.ns, rand.Uint64N(places)*uint64(blocks), blocks); err != nil {
			b.Fatal(err)
		}
	}
	done := make([]driver.Completion, j.depth)
	for tag := range j.depth {
		post(uint16(tag))
	}
	n, inflight := 0, j.depth
	begin := time.Now()
	end := begin
	for q.Ring(); inflight > 0; {
		got, err := q.Poll(done)
		if err != nil {
			b.Fatal(err)
		}
		if got == 0 {
			continue
		}
		end = time.Now()
		for i := range done[:got] {
			if err := done[i].Err(); err != nil {
				b.Fatal(err)
			}
			n++
			if end.Sub(begin) < fioTime {
				post(done[i].Tag)
			} else {
				inflight--
			}
		}
		q.Ring()
	}
	return float64(n) / end.Sub(begin).Seconds()
}

// runFio is the rate of a round of fio, per second. It submits and collects as many at a time
// as there are, like a device does.
func (j fioJob) runFio(b *testing.B) float64 {
	direct, op := 0, "randread"
	if j.direct {
		direct = 1
	}
	if j.write {
		op = "randwrite"
	}
	out, err := exec.Command(j.fio, "--name=job", "--filename="+j.path, fmt.Sprint("--size=", fioSize), "--ioengine=io_uring",
		"--rw="+op, fmt.Sprint("--bs=", j.size), fmt.Sprint("--iodepth=", j.depth), fmt.Sprint("--direct=", direct),
		fmt.Sprint("--iodepth_batch_submit=", j.depth), "--iodepth_batch_complete_min=1", fmt.Sprint("--iodepth_batch_complete_max=", j.depth),
		"--cpus_allowed=0", "--norandommap", "--randrepeat=0", "--invalidate=0", "--gtod_reduce=1", "--fallocate=none",
		"--time_based", fmt.Sprintf("--runtime=%dms", fioTime.Milliseconds()), "--output-format=json").Output()
	if err != nil {
		b.Fatalf("fio: %v\n%s", err, out)
	}
	type rate struct {
		IOPS float64 `json:"iops"`
	}
	var report struct {
		Jobs []struct{ Read, Write rate }
	}
	if err := json.Unmarshal(out, &report); err != nil || len(report.Jobs) != 1 {
		b.Fatalf("fio's report: %v\n%s", err, out)
	}
	return report.Jobs[0].Read.IOPS + report.Jobs[0].Write.IOPS
}

// fill writes the namespace, so that the file has all its blocks.
func fill(ns *driver.Namespace) error {
	chunk := make([]byte, 1<<20)
	for i := range chunk {
		chunk[i] = byte(i >> 12)
	}
	for off := int64(0); off < ns.Size(); off += int64(len(chunk)) {
		if _, err := ns.WriteAt(chunk, off); err != nil {
			return err
		}
	}
	return nil
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
