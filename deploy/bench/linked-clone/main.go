// Command linked-clone measures what Daybreak costs over bare libvirt: the time and CPU from `daybreak apply` until all
// desktops are ready, against a plain script of `qemu-img create -b` and `virsh create` with the same concurrency, the same
// virtual hardware and the same readiness test, in turns on one lab host.
//
// Here: the two runs and their comparison. Not here: the lab (deploy/lab), the thing measured. People run it, as root:
//
//	go run ./deploy/bench/linked-clone [-desktops 8] [-pairs 7]
//
// It prints one JSON line. ratio is the median of ours ÷ the peer's wall time, pair by pair; below 1 we are faster.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"daybreak/deploy/bench/measure"
	"daybreak/deploy/bench/onehost"
)

// result is the line that is printed.
type result struct {
	Bench       string  `json:"bench"`
	Desktops    int     `json:"desktops"`
	Concurrency int     `json:"concurrency"`
	Pairs       int     `json:"pairs"`
	OursS       float64 `json:"ours_s"`
	PeerS       float64 `json:"peer_s"`
	Ratio       float64 `json:"ratio"`
	RatioMin    float64 `json:"ratio_min"`
	RatioMax    float64 `json:"ratio_max"`
	OursCPUS    float64 `json:"ours_cpu_s"`
	PeerCPUS    float64 `json:"peer_cpu_s"`
	CPURatio    float64 `json:"cpu_ratio"`
	KVM         bool    `json:"kvm"`
}

func main() {
	desktops := flag.Int("desktops", 8, "desktops that are made ready in a run")
	pairs := flag.Int("pairs", 7, "runs of each side, in turns")
	flag.Parse()
	if *desktops < 1 || *desktops > 90 || *pairs < 1 {
		fmt.Fprintln(os.Stderr, "linked-clone: want 1 to 90 desktops and at least one pair")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *desktops, *pairs); err != nil {
		fmt.Fprintln(os.Stderr, "linked-clone:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, desktops, pairs int) error {
	return onehost.Compare(ctx, desktops, func(lab *onehost.Lab, peer *onehost.Script) error {
		return compare(ctx, lab, peer, desktops, pairs)
	})
}

func compare(ctx context.Context, lab *onehost.Lab, peer *onehost.Script, desktops, pairs int) error {
	var ours, theirs []sample
	for i := range pairs {
		sides := []func(context.Context) error{
			func(ctx context.Context) error { return keep(&ours)(runOurs(ctx, lab, desktops)) },
			func(ctx context.Context) error { return keep(&theirs)(runPeer(ctx, peer, desktops)) },
		}
		if i%2 == 1 {
			slices.Reverse(sides)
		}
		for _, side := range sides {
			if err := side(ctx); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "pair %d of %d: ours %.1f s (%.1f CPU-s), peer %.1f s (%.1f CPU-s)\n", i+1, pairs,
			ours[i].wall, ours[i].cpu, theirs[i].wall, theirs[i].cpu)
	}
	line := summary(ours, theirs)
	line.Desktops, line.Concurrency, line.Pairs, line.KVM = desktops, peer.Concurrency, pairs, peer.KVM
	return json.NewEncoder(os.Stdout).Encode(line)
}

// sample is one run: wall seconds, and CPU seconds of the whole machine.
type sample struct{ wall, cpu float64 }

// keep appends a run's sample unless it failed. A failed run ends the benchmark: a clone that is not ready counts as
// infinitely slow.
func keep(into *[]sample) func(sample, error) error {
	return func(s sample, err error) error {
		*into = append(*into, s)
		return err
	}
}

func summary(ours, theirs []sample) result {
	var walls, cpus, ratios, cpuRatios, peerWalls, peerCPUs []float64
	for i := range ours {
		walls = append(walls, ours[i].wall)
		cpus = append(cpus, ours[i].cpu)
		peerWalls = append(peerWalls, theirs[i].wall)
		peerCPUs = append(peerCPUs, theirs[i].cpu)
		ratios = append(ratios, ours[i].wall/theirs[i].wall)
		cpuRatios = append(cpuRatios, ours[i].cpu/theirs[i].cpu)
	}
	return result{
		Bench: "linked-clone", OursS: measure.Median(walls), PeerS: measure.Median(peerWalls), Ratio: measure.Median(ratios),
		RatioMin: slices.Min(ratios), RatioMax: slices.Max(ratios),
		OursCPUS: measure.Median(cpus), PeerCPUS: measure.Median(peerCPUs), CPURatio: measure.Median(cpuRatios),
	}
}
