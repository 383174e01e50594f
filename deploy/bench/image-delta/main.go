// Command image-delta measures how one host comes from version N of an image to N+1: bytes moved, wall time and CPU, against
// casync, rsync of the raw disk and a full copy, in turns on one machine. Every side ends with the disk synced, and its
// content is compared with N+1 byte by byte; a side that fails ends the benchmark.
//
// Here: the sides and their comparison. Not here: the control plane and the host (deploy/bench/fleet), golden images
// (deploy/golden). People run it, as root, with casync, rsync and the packages that deploy/golden/desktop names:
//
//	apt-get install casync rsync
//	go run ./deploy/bench/image-delta [-pairs 7] [-change packages|two-percent] [-dir DIR]
//
// It prints one JSON line. Ratios are medians, pair by pair: peer's wall time ÷ ours (above 1 we are faster), our bytes ÷
// the peer's (below 1 we move less). Our time begins when the control plane is told that the host shall hold N+1, and includes
// its making the deltas; casync's and rsync's include no control plane. For casync the faster of its two ways counts.
//
// What we want of it, or it ends with exit status 1 and names in "missed" what was not reached: at most 1.1 × the bytes of the
// changed 64 KiB clusters compressed, no more bytes than casync, 3 × faster than casync, and on the change of two percent 10 ×
// faster than rsync.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"daybreak/deploy/bench/measure"
)

// result is the line that is printed.
type result struct {
	Bench             string  `json:"bench"`
	Change            string  `json:"change"`
	Pairs             int     `json:"pairs"`
	DiskMiB           int64   `json:"disk_mib"`
	ContentMiB        int64   `json:"content_mib"`
	ChangedMiB        float64 `json:"changed_64k_clusters_mib"`
	ChangedSealedMiB  float64 `json:"changed_64k_clusters_compressed_mib"`
	OursMiB           float64 `json:"ours_mib"`
	CasyncMiB         float64 `json:"casync_mib"`
	RsyncMiB          float64 `json:"rsync_mib"`
	OursS             float64 `json:"ours_s"`
	CasyncS           float64 `json:"casync_s"`
	RsyncS            float64 `json:"rsync_s"`
	CopyS             float64 `json:"copy_s"`
	OursCPUS          float64 `json:"ours_cpu_s"`
	CasyncCPUS        float64 `json:"casync_cpu_s"`
	RsyncCPUS         float64 `json:"rsync_cpu_s"`
	CopyCPUS          float64 `json:"copy_cpu_s"`
	TimesCasync       float64 `json:"times_faster_than_casync"`
	TimesRsync        float64 `json:"times_faster_than_rsync"`
	TimesCopy         float64 `json:"times_faster_than_copy"`
	BytesToChanged    float64 `json:"bytes_ratio_to_changed_clusters_compressed"`
	BytesToCasync     float64 `json:"bytes_ratio_to_casync"`
	TimesCasyncMin    float64 `json:"times_faster_than_casync_min"`
	TimesRsyncMin     float64 `json:"times_faster_than_rsync_min"`
	CPUTimesVsCasync  float64 `json:"cpu_times_less_than_casync"`
	CPUTimesVsRsync   float64 `json:"cpu_times_less_than_rsync"`
	CasyncSeedS       float64 `json:"casync_with_seed_s"`
	CasyncExtraStoreS float64 `json:"casync_with_extra_store_s"`
	// Missed names the targets that were not reached.
	Missed []string `json:"missed"`
}

// errMissed: the line says which targets were not reached.
var errMissed = errors.New("targets were missed")

// misses compares with what we want.
func (r result) misses() []string {
	missed := []string{}
	for name, reached := range map[string]bool{
		"bytes at most 1.1 of the changed clusters compressed": r.BytesToChanged <= 1.1,
		"no more bytes than casync":                            r.BytesToCasync <= 1,
		"3 times faster than casync":                           r.TimesCasync >= 3,
		"10 times faster than rsync on two percent":            r.Change != "two-percent" || r.TimesRsync >= 10,
	} {
		if !reached {
			missed = append(missed, name)
		}
	}
	slices.Sort(missed)
	return missed
}

// sample is one run of one side.
type sample struct {
	wall, cpu float64
	bytes     int64
}

// side brings N to N+1 once and says what that took.
type side struct {
	name string
	run  func(ctx context.Context) (sample, error)
	all  []sample
}

func main() {
	pairs := flag.Int("pairs", 7, "runs of each side, in turns")
	change := flag.String("change", "packages", "what differs: packages (Debian packages installed in the guest's file system) or two-percent (of the content, in random 64 KiB clusters)")
	dir := flag.String("dir", "", "where to work, and to keep the images for the next run; it needs 25 GiB (default: a new directory in /var/tmp, removed at the end)")
	flag.Parse()
	if *pairs < 1 || *change != "packages" && *change != "two-percent" {
		fmt.Fprintln(os.Stderr, "image-delta: want at least one pair, and -change packages or two-percent")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *pairs, *change, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "image-delta:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, pairs int, change, dir string) (err error) {
	for _, program := range []string{"casync", "rsync", "qemu-img", "cmp"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: apt-get install casync rsync qemu-utils diffutils", program)
		}
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("/var/tmp", "image-delta-"); err != nil {
			return err
		}
		defer os.RemoveAll(dir)
	}
	d, err := makeDisks(ctx, dir, change)
	if err != nil {
		return err
	}
	work := filepath.Join(dir, "work")
	if err := errors.Join(os.RemoveAll(work), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	ours, err := newOurs(ctx, work, d)
	if err != nil {
		return err
	}
	casync, err := newCasync(ctx, work, d)
	if err != nil {
		return err
	}
	sides := []*side{
		{name: "ours", run: ours.run}, {name: "casync with seed", run: casync.seeded}, {name: "casync with extra store", run: casync.stored},
		{name: "rsync", run: func(ctx context.Context) (sample, error) { return runRsync(ctx, work, d) }},
		{name: "copy", run: func(ctx context.Context) (sample, error) { return runCopy(ctx, work, d) }},
	}
	for i := range pairs {
		order := slices.Clone(sides)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, s := range order {
			got, err := s.run(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			s.all = append(s.all, got)
			fmt.Fprintf(os.Stderr, "pair %d of %d: %s: %.2f s, %.2f CPU-s, %.1f MiB\n", i+1, pairs, s.name, got.wall, got.cpu, mib(got.bytes))
		}
	}
	line := summary(sides)
	line.Change, line.Pairs = change, pairs
	if err := d.describe(&line); err != nil {
		return err
	}
	line.BytesToChanged = line.OursMiB / line.ChangedSealedMiB
	line.Missed = line.misses()
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil || len(line.Missed) == 0 {
		return err
	}
	return errMissed
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func summary(sides []*side) result {
	of := func(i int, what func(sample) float64) (values []float64) {
		for _, s := range sides[i].all {
			values = append(values, what(s))
		}
		return values
	}
	wall, cpu := func(s sample) float64 { return s.wall }, func(s sample) float64 { return s.cpu }
	moved := func(s sample) float64 { return mib(s.bytes) }
	ratios := func(peer int, what func(sample) float64) (values []float64) {
		ours := of(0, what)
		for i, theirs := range of(peer, what) {
			values = append(values, theirs/ours[i])
		}
		return values
	}
	best := 1
	if measure.Median(of(2, wall)) < measure.Median(of(1, wall)) {
		best = 2
	}
	return result{
		Bench: "image-delta", OursMiB: measure.Median(of(0, moved)), CasyncMiB: measure.Median(of(best, moved)), RsyncMiB: measure.Median(of(3, moved)),
		OursS: measure.Median(of(0, wall)), CasyncS: measure.Median(of(best, wall)), RsyncS: measure.Median(of(3, wall)), CopyS: measure.Median(of(4, wall)),
		OursCPUS: measure.Median(of(0, cpu)), CasyncCPUS: measure.Median(of(best, cpu)), RsyncCPUS: measure.Median(of(3, cpu)), CopyCPUS: measure.Median(of(4, cpu)),
		TimesCasync: measure.Median(ratios(best, wall)), TimesRsync: measure.Median(ratios(3, wall)), TimesCopy: measure.Median(ratios(4, wall)),
		TimesCasyncMin: slices.Min(ratios(best, wall)), TimesRsyncMin: slices.Min(ratios(3, wall)),
		CPUTimesVsCasync: measure.Median(ratios(best, cpu)), CPUTimesVsRsync: measure.Median(ratios(3, cpu)),
		BytesToCasync: measure.Median(of(0, moved)) / measure.Median(of(best, moved)),
		CasyncSeedS:   measure.Median(of(1, wall)), CasyncExtraStoreS: measure.Median(of(2, wall)),
	}
}
