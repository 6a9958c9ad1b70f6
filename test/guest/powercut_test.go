package guest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vfiouser/test/qmp"
)

// powered is a disk with a write cache that forgets, and the guest that uses it.
type powered struct {
	t       *testing.T
	lab     *Lab
	server  *server
	control string
	disk    disk
	guest   *Guest
	options string // of mount
	// acked is, for each round and writer, how many records the guest was told are durable.
	acked []map[string]int
}

// writers are what goes on when the power is cut: each appends, makes or replaces files, and
// says A, its name and a number when the kernel has told it that the record is durable.
var writers = map[string]struct{ work, check string }{
	"log": {
		work:  `seq $n$n 99 $n$n$n | dd of=$dir/log oflag=append conv=notrunc,fsync status=none`,
		check: `for n in $(seq $last); do seq $n$n 99 $n$n$n; done > /tmp/want; head -c $(stat -c %s /tmp/want) $dir/log | cmp - /tmp/want`,
	},
	"file": {
		work:  `seq $n $((n + 900)) | dd of=$dir/file$n conv=fsync status=none`,
		check: `for n in $(seq $last); do seq $n $((n + 900)) | cmp - $dir/file$n || exit 1; done`,
	},
	"name": {
		work:  `echo $n > $dir/new && sync $dir/new && mv $dir/new $dir/name && sync $dir`,
		check: `[ "$(cat $dir/name)" -ge $last ]`,
	},
}

// noise is somebody who writes and is promised nothing: the cache always has something to forget.
const noise = `while dd if=/dev/zero of=$dir/noise bs=64k count=8 oflag=direct conv=notrunc status=none; do :; done 2> /dev/null &
`

// power runs vfu power, and returns how many bytes were forgotten.
func (p *powered) power(name string) int64 {
	p.t.Helper()
	var r struct{ Caches, Forgotten int64 }
	p.ask(&r, "power", name)
	if r.Caches != 1 {
		p.t.Fatalf("power %s of %d caches", name, r.Caches)
	}
	return r.Forgotten
}

// ask runs a command on the control socket.
func (p *powered) ask(result any, args ...string) {
	p.t.Helper()
	output, err := exec.CommandContext(p.t.Context(), buildCommand(p.t), append(args, "--json", "--control", p.control)...).CombinedOutput()
	if err == nil {
		err = json.Unmarshal(output, result)
	}
	if err != nil {
		p.t.Fatalf("vfu %q: %v\n%s", args, err, output)
	}
}

// servePowered starts a server whose disk is a file behind a cache.
func servePowered(t *testing.T, cache, options string) *powered {
	t.Helper()
	p := &powered{t: t, lab: lab(t), disk: disk{nsid: 1, size: 96 << 20}, options: options}
	sockets := newSockets(t, 1)
	p.control = filepath.Join(filepath.Dir(sockets[0]), "control")
	p.server = startServer(t, (*exec.Cmd).Start, sockets,
		[]string{"serve", "nvme", "--control", p.control, "--socket", sockets[0], "--namespace", cache + ",file:" + image(t, p.disk.size)})
	return p
}

// boot starts a guest. What its console says is not looked at: it may complain of the disk.
func (p *powered) boot() {
	p.t.Helper()
	ctx, cancel := timeout(p.t, bootTimeout)
	defer cancel()
	g, err := p.lab.Boot(ctx, Config{Sockets: p.server.sockets})
	if err != nil {
		p.t.Fatalf("boot: %v", err)
	}
	p.t.Cleanup(g.Close)
	p.guest = g
}

// work has the writers write until so many records of all of them are durable.
func (p *powered) work(records int) {
	t := p.t
	t.Helper()
	round := len(p.acked)
	script := fmt.Sprintf("dir=/mnt/%d; mkdir $dir || exit\n", round)
	for name, w := range writers {
		script += fmt.Sprintf("n=0; while n=$((n + 1)); %s; do echo A %s $n; done 2> /dev/null &\n", w.work, name)
	}
	ctx, cancel := timeout(t, scriptTimeout)
	defer cancel()
	if err := p.guest.agent.send(ctx, script+noise+"wait\n"); err != nil {
		t.Fatal(err)
	}
	p.acked = append(p.acked, map[string]int{})
	for ; records > 0; records-- {
		if !p.hear(ctx, func(line string) bool { return strings.HasPrefix(line, "A ") }) {
			t.Fatalf("the guest stops after %v", p.acked[round])
		}
	}
}

// hear reads what the guest says until a line that is wanted, false if that does not come.
// Acknowledgements count, whoever waits for what.
func (p *powered) hear(ctx context.Context, wanted func(line string) bool) bool {
	defer qmp.Deadline(ctx, p.guest.agent.conn)()
	for {
		line, err := p.guest.agent.in.ReadString('\n')
		if err != nil {
			return false
		}
		if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "A" && line[len(line)-1] == '\n' {
			if n, err := strconv.Atoi(fields[2]); err == nil && writers[fields[1]].work != "" {
				p.acked[len(p.acked)-1][fields[1]] = n
			}
		}
		if wanted(line) {
			return true
		}
	}
}

// cut cuts the power and begins again, with the same machine or with another one. It returns
// how much the disk has forgotten.
func (p *powered) cut(reset bool) (forgotten int64) {
	t := p.t
	t.Helper()
	ctx, cancel := timeout(t, bootTimeout)
	defer cancel()
	forgotten = p.power("cut")
	if !reset {
		p.guest.Close()
		// What was in its queues has failed when the server has let go of it.
		eventually(t, func() error {
			var status struct{ Devices []struct{ Client bool } }
			p.ask(&status, "status")
			if status.Devices[0].Client {
				return fmt.Errorf("the server has a client yet")
			}
			return nil
		})
		p.power("on")
		p.boot()
		return forgotten
	}
	for _, c := range []struct {
		command   string
		arguments any
	}{{"set-action", map[string]string{"reboot": "reset"}}, {"stop", nil}, {"system_reset", nil}} {
		if err := p.guest.Monitor(ctx, c.command, c.arguments, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.guest.monitor.Wait(ctx, func(e qmp.Event) bool { return e.Name == "RESET" }); err != nil {
		t.Fatal(err)
	}
	p.power("on")
	if err := p.guest.Monitor(ctx, "cont", nil, nil); err != nil {
		t.Fatal(err)
	}
	// (half a line may stand before it)
	if !p.hear(ctx, func(line string) bool { return strings.HasSuffix(line, "@READY\n") }) {
		t.Fatalf("the guest does not come back\nconsole:\n%s", p.guest.Console())
	}
	return forgotten
}

// mount mounts the disk, which replays the journal.
func (p *powered) mount() error {
	ctx, cancel := timeout(p.t, scriptTimeout)
	defer cancel()
	_, err := p.guest.Run(ctx, p.disk.script("set -e; mount -t ext4 "+p.options+" $disk /mnt"))
	return err
}

// check looks for the records of some rounds.
func (p *powered) check(rounds ...int) error {
	ctx, cancel := timeout(p.t, scriptTimeout)
	defer cancel()
	var script strings.Builder
	for _, round := range rounds {
		for _, name := range slices.Sorted(maps.Keys(p.acked[round])) {
			fmt.Fprintf(&script, "(dir=/mnt/%d last=%d; %s) || { echo lost: %s in round %[1]d, of %[2]d records; exit 1; }\n",
				round, p.acked[round][name], writers[name].check, name)
		}
	}
	_, err := p.guest.Run(ctx, script.String())
	return err
}

// fsck unmounts the disk and has e2fsck look at it.
func (p *powered) fsck() error {
	ctx, cancel := timeout(p.t, scriptTimeout)
	defer cancel()
	_, err := p.guest.Run(ctx, p.disk.script("set -e; umount /mnt; e2fsck -f -n $disk"))
	return err
}

// times is the number in a variable of the environment, else a few.
func times(t *testing.T, variable string, few int) int {
	text := os.Getenv(variable)
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is no number of times", variable, text)
	}
	return n
}

// The power of the disk is cut while a guest writes. What its kernel has said to be durable is
// there afterwards, and the filesystem is whole when its journal was replayed.
func TestPowerCuts(t *testing.T) {
	cuts, seed := times(t, "VFIOUSER_POWER_CUTS", 3), rand.Uint64()
	t.Logf("seed %d, %d power cuts", seed, cuts)
	rng := rand.New(rand.NewPCG(seed, 0))
	p := servePowered(t, fmt.Sprintf("volatile:keep=30%%:seed=%d", seed>>1|1), "")
	p.boot()
	run(t, p.guest, p.disk.script("mkfs.ext4 -q -F $disk"))
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%v\nconsole:\n%s", err, p.guest.Console())
		}
	}
	must(p.mount())
	forgotten, records := int64(0), 0
	for i := range cuts {
		p.work(1 + rng.IntN(50))
		forgotten += p.cut(i%2 == 0)
		must(p.mount())
		rounds := []int{i}
		if i == cuts-1 {
			rounds = rounds[:0]
			for round := range cuts {
				rounds = append(rounds, round)
			}
		}
		must(p.check(rounds...))
		must(p.fsck())
		must(p.mount())
		for _, n := range p.acked[i] {
			records += n
		}
	}
	t.Logf("%d records were durable, %d bytes forgotten", records, forgotten)
	if forgotten == 0 && cuts >= 10 { // one may come just behind a flush
		t.Error("nothing was forgotten in all power cuts, so nothing was tested")
	}
}

// A filesystem that sends no flushes loses what it said to be durable.
func TestPowerCutWithoutFlushes(t *testing.T) {
	p := servePowered(t, "volatile", "-o barrier=0")
	p.boot()
	run(t, p.guest, p.disk.script("mkfs.ext4 -q -F $disk"))
	if err := p.mount(); err != nil {
		t.Fatal(err)
	}
	p.work(30)
	if p.cut(false) == 0 {
		t.Error("nothing was forgotten")
	}
	if p.mount() == nil && p.check(0) == nil {
		t.Errorf("nothing is lost of %v", p.acked[0])
	}
}
