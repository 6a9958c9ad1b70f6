package guest

import (
	"strings"
	"testing"
)

// TestReservations has two controllers of one subsystem in one guest, as two hosts, which
// reserve the namespace by nvme-cli.
func TestReservations(t *testing.T) {
	s := serve(t,
		served{namespaces: []string{"mem:64M"}, options: strings.Fields("--subsystem shared --serial RESERVED --state-dir " + t.TempDir())},
		served{options: strings.Fields("--subsystem shared")},
	)
	ctx, cancel := timeout(t, bootTimeout)
	defer cancel()
	// (that it complains of conflicts is what it should)
	g, err := lab(t).Boot(ctx, Config{Sockets: s.sockets, CPUs: 2, Kernel: []string{"nvme_core.multipath=N"}})
	if err != nil {
		t.Fatalf("boot: %v", err)
	}
	t.Cleanup(g.Close)
	a, b := disk{nsid: 1}.name(t, g), disk{device: 1, nsid: 1}.name(t, g)
	run(t, g, "a="+a+" b="+b+`
fails() { # pattern, command
  want=$1; shift
  if out=$("$@" 2>&1); then echo "no failure: $*"; exit 1; fi
  echo "$out" | grep -qi "$want" || { echo "$*: $out, not $want"; exit 1; }
}
writes() { dd if=/dev/urandom of=$1 bs=4k count=4 oflag=direct 2>&1; }
reads() { dd if=$1 of=/dev/null bs=4k count=4 iflag=direct 2>&1; }
for n in 1 2; do
  printf "host-identifier$n" > /tmp/host$n
done
nvme set-feature ${a%n1} -f 0x81 --value=1 --data-len=16 --data=/tmp/host1
nvme set-feature ${b%n1} -f 0x81 --value=1 --data-len=16 --data=/tmp/host2
nvme id-ns $a | grep -q 'rescap *: 0xff'
nvme resv-register $a --nrkey=0x10 --rrega=0 --cptpl=3
nvme resv-register $b --nrkey=0x11 --rrega=0
nvme resv-acquire $a --crkey=0x10 --rtype=1 --racqa=0
nvme resv-report $a -e -o json > /tmp/report
grep -q '"regctl" *: *2' /tmp/report && grep -q '"rtype" *: *1' /tmp/report && grep -q '"ptpls" *: *1' /tmp/report || { cat /tmp/report; exit 1; }
grep -q '"rkey" *: *16' /tmp/report && grep -q '"rkey" *: *17' /tmp/report || { cat /tmp/report; exit 1; }
writes $a; reads $a; reads $b
fails 'exchange\|error' writes $b
fails conflict nvme resv-acquire $b --crkey=0x11 --rtype=1 --racqa=0
fails conflict nvme write $b -s 0 -c 0 -z 512 -d /dev/zero
nvme resv-acquire $b --crkey=0x11 --prkey=0x10 --rtype=2 --racqa=2
fails 'exchange\|error' reads $a
writes $b
nvme resv-notif-log ${a%n1} -o json > /tmp/notice
grep -q '"rn_log_type" *: *1' /tmp/notice || { cat /tmp/notice; exit 1; }
nvme resv-release $b --crkey=0x11 --rtype=2 --rrela=0
reads $a
nvme resv-release $b --crkey=0x11 --rtype=2 --rrela=1`)
	checkKernelReservations(t, g, a, b)
	powerOff(t, g)
}

// checkKernelReservations reserves by the kernel's own interface (linux/pr.h), which clusters use.
func checkKernelReservations(t *testing.T, g *Guest, a, b string) {
	t.Helper()
	run(t, g, "a="+a+" b="+b+`
fails() { if out=$("$@" 2>&1); then echo "no failure: $*"; exit 1; fi; }
writes() { dd if=/dev/urandom of=$1 bs=4k count=4 oflag=direct 2>&1; }
reads() { dd if=$1 of=/dev/null bs=4k count=4 iflag=direct 2>&1; }
pr() { blkpr --command "$@"; }
pr register --key 0x20 $a
pr register --key 0x21 $b
pr reserve --key 0x20 --type write-exclusive-reg-only $a
writes $a; writes $b # who is registered
pr release --key 0x20 --type write-exclusive-reg-only $a
pr reserve --key 0x20 --type exclusive-access $a
fails reads $b
fails pr reserve --key 0x21 --type exclusive-access $b
pr preempt --key 0x20 --oldkey 0x21 --type exclusive-access $b # (Linux sends the old key as that of the host)
reads $b
fails writes $a
fails pr release --key 0x20 --type exclusive-access $a
pr clear --key 0x21 $b
writes $a; reads $b
nvme resv-report $a -e -o json | grep -q '"regctl" *: *0'`)
}
