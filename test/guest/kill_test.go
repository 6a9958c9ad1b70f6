package guest

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"vfiouser/test/qmp"
)

// killedDisks is how many disks a guest has, each of a server of its own, so that one boot does
// for as many kills.
const killedDisks = 8

// killed is a disk whose server is killed.
type killed struct {
	disk
	server        *server
	socket, image string
	// acked is, for each round and writer, how many records the guest was told are durable.
	acked []map[string]int
}

// killing is a guest with such disks.
type killing struct {
	t     *testing.T
	lab   *Lab
	rng   *rand.Rand
	guest *Guest
	disks []*killed
}

// The servers of a guest's disks are killed while it writes to all of them. The next guest finds
// what the kernel of that one has said to be durable, and the filesystems are whole. Every other
// disk is behind a cache that is lost with the process but for a part.
func TestServerKills(t *testing.T) {
	kills, seed := times(t, "VFIOUSER_SERVER_KILLS", 2), rand.Uint64()
	t.Logf("seed %d, %d kills", seed, kills)
	k := &killing{t: t, lab: lab(t), rng: rand.New(rand.NewPCG(seed, 0))}
	n := min(kills, killedDisks)
	rounds := (kills + n - 1) / n
	for i, socket := range newSockets(t, n) {
		k.disks = append(k.disks, &killed{disk: disk{device: i, nsid: 1}, socket: socket,
			image: image(t, int64(96+rounds)<<20)}) // a round takes less than 1 MiB
	}
	k.boot()
	for _, d := range k.disks {
		run(t, k.guest, d.script(fmt.Sprintf("mkfs.ext4 -q -F $disk; mkdir /mnt/%d; mount $disk /mnt/%[1]d", d.device)))
	}
	for round := range rounds {
		k.work(round)
		k.guest.Close()
		k.boot()
		first := round
		if round == rounds-1 {
			first = 0
		}
		for _, d := range k.disks {
			k.check(d, first, round)
		}
	}
	records := 0
	for _, d := range k.disks {
		for _, acked := range d.acked {
			for _, n := range acked {
				records += n
			}
		}
	}
	t.Logf("%d kills, %d records were durable", rounds*n, records)
}

// boot starts the servers, and a guest. What its console says is not looked at: it will complain.
func (k *killing) boot() {
	t := k.t
	t.Helper()
	var cfg Config
	for i, d := range k.disks {
		namespace := []string{"", "volatile:keep=30%,"}[i%2] + "file:" + d.image
		d.server = startServer(t, (*exec.Cmd).Start, []string{d.socket}, []string{"serve", "nvme", "--socket", d.socket, "--namespace", namespace})
		cfg.Sockets = append(cfg.Sockets, d.socket)
	}
	ctx, cancel := timeout(t, bootTimeout)
	defer cancel()
	g, err := k.lab.Boot(ctx, cfg)
	if err != nil {
		t.Fatalf("boot: %v", err)
	}
	t.Cleanup(g.Close)
	k.guest = g
}

// work has the writers write to all disks, and kills the servers, in any order. (One after the
// other, with writes in between, does not work: QEMU 11.1 does not survive a dead server for long.)
func (k *killing) work(round int) {
	t := k.t
	t.Helper()
	var script strings.Builder
	for _, d := range k.disks {
		fmt.Fprintf(&script, "(\ndir=/mnt/%d/%d; mkdir $dir || exit\n", d.device, round)
		for name, w := range writers {
			fmt.Fprintf(&script, "n=0; while n=$((n + 1)); %s; do echo A %d %s $n; done 2> /dev/null &\n", w.work, d.device, name)
		}
		script.WriteString(noise + "wait\n) &\n")
		d.acked = append(d.acked, map[string]int{})
	}
	ctx, cancel := timeout(t, scriptTimeout)
	defer cancel()
	if err := k.guest.agent.send(ctx, script.String()+"wait\n"); err != nil {
		t.Fatal(err)
	}
	k.hear(ctx, 1+k.rng.IntN(20*len(k.disks)))
	for _, i := range k.rng.Perm(len(k.disks)) {
		k.disks[i].server.kill()
	}
}

// hear reads so many acknowledgements.
func (k *killing) hear(ctx context.Context, records int) {
	k.t.Helper()
	defer qmp.Deadline(ctx, k.guest.agent.conn)()
	for records > 0 {
		line, err := k.guest.agent.in.ReadString('\n')
		if err != nil {
			k.t.Fatalf("the guest says no more: %v\nconsole:\n%s", err, k.guest.Console())
		}
		fields := strings.Fields(line)
		if len(fields) != 4 || fields[0] != "A" {
			continue
		}
		device, err := strconv.Atoi(fields[1])
		n, err2 := strconv.Atoi(fields[3])
		if err != nil || err2 != nil || device >= len(k.disks) || writers[fields[2]].work == "" {
			k.t.Fatalf("the guest says %q", line)
		}
		k.disks[device].acked[len(k.disks[device].acked)-1][fields[2]] = n
		records--
	}
}

// check mounts a disk, which replays the journal, looks for the records of some rounds, and has
// e2fsck look at it.
func (k *killing) check(d *killed, first, last int) {
	k.t.Helper()
	var checks strings.Builder
	for round := first; round <= last; round++ {
		for _, name := range slices.Sorted(maps.Keys(d.acked[round])) {
			fmt.Fprintf(&checks, "(dir=/mnt/%d/%d last=%d; %s) || { echo lost: %s in round %[2]d on disk %[1]d, of %[3]d records; exit 1; }\n",
				d.device, round, d.acked[round][name], writers[name].check, name)
		}
	}
	run(k.t, k.guest, d.script(fmt.Sprintf("mkdir -p /mnt/%d; mount -t ext4 $disk /mnt/%[1]d\n%sumount /mnt/%[1]d; e2fsck -f -n $disk 2>&1; mount -t ext4 $disk /mnt/%[1]d",
		d.device, checks.String())))
}
