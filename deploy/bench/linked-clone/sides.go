package main

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"daybreak/deploy/bench/onehost"
)

// runPeer measures the script, and takes its clones away afterwards.
func runPeer(ctx context.Context, peer *onehost.Script, desktops int) (sample, error) {
	s, err := timed(func() error {
		_, err := peer.Run(ctx, desktops, peer.Concurrency)
		return err
	})
	if err != nil {
		return s, err
	}
	return s, peer.Clear(ctx)
}

// runOurs measures Daybreak, and takes the desktops away afterwards.
func runOurs(ctx context.Context, lab *onehost.Lab, desktops int) (sample, error) {
	s, err := timed(func() error { return lab.Ready(ctx, desktops) })
	if err != nil {
		return s, err
	}
	return s, lab.Empty(ctx)
}

// timed runs something and counts wall time and the machine's busy CPU time.
func timed(what func() error) (sample, error) {
	began, busy := time.Now(), busySeconds()
	err := what()
	return sample{wall: time.Since(began).Seconds(), cpu: busySeconds() - busy}, err
}

// busySeconds is the time that the machine's CPUs worked: user, nice, system, irq, softirq.
func busySeconds() float64 {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	var ticks float64
	for _, i := range []int{1, 2, 3, 6, 7} {
		if i < len(fields) {
			n, _ := strconv.ParseFloat(fields[i], 64)
			ticks += n
		}
	}
	return ticks / 100
}
