// Command deadline measures how well desktops are warm when the doors open: Daybreak's warm-up plan against two plain
// scripts that begin a fixed time before, one that starts all desktops at once and one that starts so many at a time as the
// host bears. What counts is misses, and desktop-seconds that stood ready before anybody could use them.
//
// Here: the three runs and their comparison. Not here: the lab and the scripts (deploy/bench/onehost). People run it, as root:
//
//	go run ./deploy/bench/deadline [-desktops 8] [-rounds 7] [-lead 5m]
//
// It prints one JSON line and ends with status 1 when a target is missed: no desktop late, and at most half of the early
// desktop-seconds of either script (medians over the rounds). Beside it stands how near our starts come to keeping all places for boots
// busy. A script's lead is what people set who do not know how long their desktops take; 5 minutes is the customary buffer
// (EC2's predictive scaling has it as its default).
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"

	"daybreak/deploy/bench/measure"
	"daybreak/deploy/bench/onehost"
)

// errMissed: the benchmark ran, and what it is to show does not hold.
var errMissed = errors.New("a target is missed")

// side is one way to warm up, over the rounds.
type side struct {
	EarlyS []float64 `json:"early_s"` // desktop-seconds ready before the deadline, a round each
	Late   int       `json:"late"`    // desktops that were not ready by the deadline, in all rounds
	WorstS float64   `json:"worst_s"` // by how much the latest was late
}

// result is the line that is printed.
type result struct {
	Bench      string    `json:"bench"`
	Desktops   int       `json:"desktops"`
	Rounds     int       `json:"rounds"`
	LeadS      float64   `json:"lead_s"`
	AtOnce     int       `json:"at_once"`
	KVM        bool      `json:"kvm"`
	Ours       side      `json:"ours"`
	Makespans  []float64 `json:"makespan_ratios"` // ours, a round each: from the first start to the last desktop ready ÷ the fluid bound
	StartAll   side      `json:"start_all"`
	Fixed      side      `json:"fixed"`
	RatioAll   float64   `json:"ratio_start_all"` // our median early seconds ÷ theirs
	RatioFixed float64   `json:"ratio_fixed"`
	Missed     []string  `json:"missed"`
}

func main() {
	desktops := flag.Int("desktops", 8, "desktops that are to be ready")
	rounds := flag.Int("rounds", 7, "runs of each side, in turns")
	lead := flag.Duration("lead", 5*time.Minute, "how long before the deadline the scripts begin")
	flag.Parse()
	if *desktops < 1 || *desktops > 90 || *rounds < 1 || *lead < time.Minute {
		fmt.Fprintln(os.Stderr, "deadline: want 1 to 90 desktops, at least one round, and a lead of at least a minute")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *desktops, *rounds, *lead); err != nil {
		fmt.Fprintln(os.Stderr, "deadline:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, desktops, rounds int, lead time.Duration) error {
	return onehost.Compare(ctx, desktops, func(lab *onehost.Lab, script *onehost.Script) error {
		return compare(ctx, lab, script, desktops, rounds, lead)
	})
}

func compare(ctx context.Context, lab *onehost.Lab, script *onehost.Script, desktops, rounds int, lead time.Duration) error {
	line := result{Bench: "deadline", Desktops: desktops, Rounds: rounds, LeadS: lead.Seconds(), AtOnce: script.Concurrency, KVM: script.KVM, Missed: []string{}}
	sides := []func(context.Context) error{
		func(ctx context.Context) error {
			o, err := warmUp(ctx, lab, desktops)
			if err == nil {
				line.Makespans = append(line.Makespans, o.makespanRatio(script.Concurrency))
			}
			return line.Ours.add(o, err)
		},
		func(ctx context.Context) error {
			return line.StartAll.add(fromScript(ctx, script, desktops, desktops, lead))
		},
		func(ctx context.Context) error {
			return line.Fixed.add(fromScript(ctx, script, desktops, script.Concurrency, lead))
		},
	}
	for round := range rounds {
		for i := range sides {
			if err := sides[(i+round)%len(sides)](ctx); err != nil {
				return err
			}
		}
		fmt.Fprintf(os.Stderr, "round %d of %d: early desktop-seconds: ours %.0f, start-all %.0f, fixed %.0f; late so far: %d, %d, %d; our makespan %.2f of the bound\n",
			round+1, rounds, line.Ours.EarlyS[round], line.StartAll.EarlyS[round], line.Fixed.EarlyS[round], line.Ours.Late, line.StartAll.Late, line.Fixed.Late,
			line.Makespans[round])
	}
	line.judge()
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		return err
	}
	if len(line.Missed) > 0 {
		return errMissed
	}
	return nil
}

// outcome is one run: the deadline, and when each desktop was ready.
type outcome struct {
	deadline time.Time
	ready    []time.Time
	// Known of ours alone: when the first start was, and how long all took together.
	first time.Time
	work  time.Duration
}

// makespanRatio compares the time from the first start to the last desktop that was ready with the least in which so many places for boots
// can do as much, could boots be cut into pieces.
func (o outcome) makespanRatio(atOnce int) float64 {
	if len(o.ready) == 0 || o.work == 0 {
		return 0
	}
	bound := o.work / time.Duration(min(atOnce, len(o.ready)))
	return slices.MaxFunc(o.ready, time.Time.Compare).Sub(o.first).Seconds() / bound.Seconds()
}

func (s *side) add(o outcome, err error) error {
	if err != nil {
		return err
	}
	early := 0.0
	for _, at := range o.ready {
		if late := at.Sub(o.deadline).Seconds(); late > 0 {
			s.Late++
			s.WorstS = max(s.WorstS, late)
		} else {
			early -= late
		}
	}
	s.EarlyS = append(s.EarlyS, early)
	return nil
}

func (r *result) judge() {
	ours := measure.Median(r.Ours.EarlyS)
	r.RatioAll, r.RatioFixed = ours/measure.Median(r.StartAll.EarlyS), ours/measure.Median(r.Fixed.EarlyS)
	if r.Ours.Late > 0 {
		r.Missed = append(r.Missed, "no desktop late")
	}
	if r.RatioAll > 0.5 {
		r.Missed = append(r.Missed, "at most half of start-all's early desktop-seconds")
	}
	if r.RatioFixed > 0.5 {
		r.Missed = append(r.Missed, "at most half of fixed concurrency's early desktop-seconds")
	}
}
