// Command image-fanout measures how an image reaches many hosts at once: a control plane and hosts in one process, each behind
// a line of its own (token buckets, both directions), with the real services, agents, stores and certificates.
//
// Here: the run and its line. Not here: plane and hosts (deploy/bench/fleet). People run it; root is not needed:
//
//	go run ./deploy/bench/image-fanout [-hosts 32] [-mib 64] [-line 1] [-runs 3]
//
// It prints one JSON line. makespan_ratio is the median over the runs of the time until the last host has the whole version,
// compared and synced, ÷ (compressed size ÷ line rate); store_images is what the control plane sent, in compressed sizes,
// the largest of the runs. What we want is a ratio of at most 1.5 and 2 images; otherwise it ends with exit status 1 and names
// in "missed" what was not reached.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"daybreak/deploy/bench/fleet"
	"daybreak/deploy/bench/measure"
	"daybreak/images"
)

type result struct {
	Bench         string  `json:"bench"`
	Hosts         int     `json:"hosts"`
	ImageMiB      int     `json:"image_mib"`
	LineMiBs      float64 `json:"line_mib_per_s"`
	Runs          int     `json:"runs"`
	IdealS        float64 `json:"ideal_s"`
	MakespanS     float64 `json:"makespan_s"`
	MakespanRatio float64 `json:"makespan_ratio"`
	RatioMin      float64 `json:"makespan_ratio_min"`
	RatioMax      float64 `json:"makespan_ratio_max"`
	StoreImages   float64 `json:"store_images"`
	BusiestImages float64 `json:"busiest_host_sent_images"`
	CPUS          float64 `json:"cpu_s"`
	// Missed names the targets that were not reached.
	Missed []string `json:"missed"`
}

// misses compares with what we want.
func (r result) misses() []string {
	missed := []string{}
	if r.MakespanRatio > 1.5 {
		missed = append(missed, "makespan at most 1.5 of size by line")
	}
	if r.StoreImages > 2 {
		missed = append(missed, "at most 2 images from the store")
	}
	return missed
}

// options are the flags.
type options struct {
	hosts, mib, runs int
	line             float64
	dir              string
}

func main() {
	var o options
	flag.IntVar(&o.hosts, "hosts", 32, "hosts that fetch at once")
	flag.IntVar(&o.mib, "mib", 64, "size of the image, MiB, of noise: it is as large compressed")
	flag.Float64Var(&o.line, "line", 1, "speed of every line, the control plane's too, MiB per second and direction")
	flag.IntVar(&o.runs, "runs", 3, "runs")
	flag.StringVar(&o.dir, "dir", "/var/tmp", "where the stores of all hosts are made; it needs room for (hosts+2) images")
	flag.Parse()
	if o.hosts < 1 || o.hosts > 200 || o.mib < 1 || o.mib > 4096 || o.runs < 1 || o.line <= 0 {
		fmt.Fprintln(os.Stderr, "image-fanout: want 1 to 200 hosts, 1 to 4096 MiB, a line and at least one run")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	line, err := sample(ctx, o)
	if err == nil {
		line.Missed = line.misses()
		err = json.NewEncoder(os.Stdout).Encode(line)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "image-fanout:", err)
		os.Exit(1)
	}
	if len(line.Missed) > 0 {
		os.Exit(1)
	}
}

// run is what one run came to: seconds, and images' worth of bytes.
type run struct{ makespan, cpu, store, busiest float64 }

func sample(ctx context.Context, o options) (result, error) {
	size := float64(o.mib << 20)
	ideal := size / (o.line * (1 << 20))
	var makespans, ratios, cpus, stores, busiest []float64
	for i := range o.runs {
		r, err := once(ctx, o, uint64(i))
		if err != nil {
			return result{}, err
		}
		fmt.Fprintf(os.Stderr, "run %d of %d: %.1f s, ideal %.1f s; the store sent %.2f images, the busiest host %.2f; %.1f CPU-s\n",
			i+1, o.runs, r.makespan, ideal, r.store, r.busiest, r.cpu)
		makespans, ratios, cpus = append(makespans, r.makespan), append(ratios, r.makespan/ideal), append(cpus, r.cpu)
		stores, busiest = append(stores, r.store), append(busiest, r.busiest)
	}
	return result{
		Bench: "image-fanout", Hosts: o.hosts, ImageMiB: o.mib, LineMiBs: o.line, Runs: o.runs, IdealS: ideal, MakespanS: measure.Median(makespans),
		MakespanRatio: measure.Median(ratios), RatioMin: slices.Min(ratios), RatioMax: slices.Max(ratios), StoreImages: slices.Max(stores),
		BusiestImages: slices.Max(busiest), CPUS: measure.Median(cpus),
	}, nil
}

// once makes a fleet, lets it fetch, and takes it away.
func once(ctx context.Context, o options, seed uint64) (r run, err error) {
	dir, err := os.MkdirTemp(o.dir, "image-fanout-")
	if err != nil {
		return r, err
	}
	defer os.RemoveAll(dir)
	speed := int64(o.line * (1 << 20))
	plane, err := fleet.NewPlane(filepath.Join(dir, "plane"), fleet.NewLine(speed), fleet.Quiet())
	if err != nil {
		return r, err
	}
	defer func() { err = firstError(err, plane.Close()) }()
	raw := filepath.Join(dir, "image.raw")
	if err := noise(raw, o.mib<<20, seed); err != nil {
		return r, err
	}
	digest, err := plane.Import(ctx, raw)
	if err != nil {
		return r, err
	}
	var hosts []*fleet.Host
	defer func() {
		for _, h := range hosts {
			err = firstError(err, h.Close())
		}
	}()
	for i := range o.hosts {
		name := fmt.Sprintf("h%03d", i)
		h, err := plane.AddHost(ctx, name, filepath.Join(dir, name), fleet.NewLine(speed), true)
		if err != nil {
			return r, err
		}
		hosts = append(hosts, h)
	}
	if err := plane.Up(ctx, hosts); err != nil {
		return r, err
	}
	return fetch(ctx, plane, hosts, digest, float64(o.mib<<20))
}

func fetch(ctx context.Context, plane *fleet.Plane, hosts []*fleet.Host, digest string, size float64) (r run, err error) {
	began, cpu, sent := time.Now(), measure.CPUSeconds(), plane.Line.Sent()
	if err := plane.Want(ctx, hosts, digest); err != nil {
		return r, err
	}
	for _, h := range hosts {
		at, err := h.Await(ctx, digest)
		if err != nil {
			return r, err
		}
		r.makespan = max(r.makespan, at.Sub(began).Seconds())
		r.busiest = max(r.busiest, float64(h.Line.Sent())/size)
	}
	r.cpu, r.store = measure.CPUSeconds()-cpu, float64(plane.Line.Sent()-sent)/size
	return r, nil
}

// noise writes a disk that does not compress.
func noise(path string, size int, seed uint64) error {
	source := rand.NewChaCha8([32]byte{byte(seed), 1})
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, images.ChunkBytes)
	for at := 0; at < size; at += len(buf) {
		source.Read(buf)
		if _, err := f.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
