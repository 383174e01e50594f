// Package build makes versions of images by patching them, and checks versions by booting them, on hosts.
//
// Here: the relay between the stream of whoever wants a build and the stream of the agent that does it, the choice of the
// host, and what becomes of the result: a version that is whole, checked and ready, or none. All of it is in memory, on the
// leader: a build lives as long as both its streams. Not here: the VM (hostagent), who may ask for it (api), how a version
// comes into the store (orchestrator/catalog), which hosts have room (orchestrator/placement). Only api calls it.
package build

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"

	"daybreak/images"
	"daybreak/images/chunkstore"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// Sentinels. An image that does not exist is store.ErrNotFound, a daybreakd that does not lead store.ErrNotLeader.
var (
	// ErrInvalid: the order contradicts itself, or what follows it is not what it announced.
	ErrInvalid = errors.New("not a valid order")
	// ErrRefused: the build cannot be done as things are.
	ErrRefused = errors.New("build refused")
	// ErrBusy: too many builds are under way, or one that this would be in the way of.
	ErrBusy = errors.New("too many builds")
	// ErrFailed: the build was begun and did not come to its end.
	ErrFailed = errors.New("build failed")
	// ErrStopping: daybreakd is being stopped.
	ErrStopping = errors.New("daybreakd is being stopped")
	// ErrNotBuilding: the host makes no version now.
	ErrNotBuilding = errors.New("no such build")
	// ErrTooMuch: a host sent more than a disk can hold.
	ErrTooMuch = errors.New("more chunks than the build's disk has")
)

const (
	// maxBuilds is how many builds there may be at once, and maxHostBuilds on one host.
	maxBuilds     = 8
	maxHostBuilds = 2
	// arrivalLimit is how long an agent that agreed to a build may take to open its stream.
	arrivalLimit = 30 * time.Second
	// maxOutput bounds what one build may say in all; what is kept of it is a chunk.
	maxOutput = 256 << 20
)

// Caller calls a host's agent to a build: it will open a stream that names the id. orchestrator/dispatch has the real one.
type Caller interface {
	CallBuild(ctx context.Context, host, id string, build *v1.BuildAsk) error
}

// The two streams that meet.
type (
	// People is the stream of whoever wants the build.
	People = grpc.BidiStreamingServer[v1.BuildRequest, v1.BuildResponse]
	// Agent is the stream of the host that does it.
	Agent = grpc.BidiStreamingServer[v1.BuildUpdate, v1.BuildTask]
)

// Deps is what a Relay works with.
type Deps struct {
	Call   Caller
	Intake *catalog.Intake
	// Chunks keeps what builds said and the lists of packages, sealed by Codec.
	Chunks chunkstore.Store
	Codec  *images.Codec
	// Objects is opened for store.WriterRollout: events about images are written with it.
	Objects *store.Store
	Mirror  *store.Mirror
	// Closing is closed when daybreakd is being stopped: builds end then.
	Closing <-chan struct{}
	Log     zerolog.Logger
}

// Relay knows the builds that are under way. Safe for concurrent use.
type Relay struct {
	deps      Deps
	maxOutput uint64

	mu   sync.Mutex
	jobs map[*job]struct{}
	legs map[string]*leg // by id
}

// NewRelay makes a relay without builds.
func NewRelay(deps Deps) *Relay {
	return &Relay{deps: deps, maxOutput: maxOutput, jobs: map[*job]struct{}{}, legs: map[string]*leg{}}
}

// Build does one build for by, whose stream it is. Errors wrap this room's sentinels, the store's, or those of images.
func (r *Relay) Build(by string, people People) error {
	ctx, cancel := context.WithCancel(people.Context())
	defer cancel()
	words := listen(ctx, people.Recv)
	order, err := firstOrder(ctx, words)
	if err != nil {
		return err
	}
	view, err := r.newest(ctx)
	if err != nil {
		return err
	}
	plan, err := resolve(view, order)
	if err != nil {
		return err
	}
	j := &job{relay: r, plan: plan, by: by, people: people, words: words, seal: make(chan struct{}, 1), refused: map[string]bool{}}
	for _, file := range order.GetFiles() {
		j.filesLeft += file.GetSize()
	}
	if err := r.admit(view, j); err != nil {
		return err
	}
	defer r.leave(j)
	return j.run(ctx)
}

// newest returns a view that has all that was written until now: whoever has just imported an image may patch it.
func (r *Relay) newest(ctx context.Context) (*store.View, error) {
	_, revision, err := r.deps.Objects.List(ctx, v1.Kind_KIND_ZONE)
	if err != nil {
		return nil, err
	}
	return r.deps.Mirror.Wait(ctx, revision)
}

// admit chooses the job's host and counts it there, or says why not. It may be called again when that host refused.
func (r *Relay) admit(view *store.View, j *job) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, j)
	if len(r.jobs) >= maxBuilds {
		return fmt.Errorf("%d builds are under way, the most there can be: wait for one to end: %w", len(r.jobs), ErrBusy)
	}
	taken, builds := map[string]uint64{}, map[string]int{}
	for other := range r.jobs {
		taken[other.host] += other.plan.memoryMiB()
		builds[other.host]++
		if j.plan.order.GetInteractive() && other.plan.order.GetInteractive() && j.plan.image == other.plan.image {
			return fmt.Errorf("%s patches image %s interactively already, on host %s: seal or end that build first: %w",
				other.by, j.plan.image, other.host, ErrBusy)
		}
	}
	host, err := j.plan.choose(view, taken, j.refused)
	if err != nil {
		return err
	}
	if builds[host] >= maxHostBuilds {
		return fmt.Errorf("host %s has %d builds under way, the most it can have: wait for one to end, or name another with --host: %w",
			host, builds[host], ErrBusy)
	}
	j.host = host
	r.jobs[j] = struct{}{}
	return nil
}

func (r *Relay) leave(j *job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.jobs, j)
}

// Seal tells the interactive build of an image that its admin is done. store.ErrNotFound when there is none, ErrRefused
// when it does not wait yet, or no more.
func (r *Relay) Seal(image string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for j := range r.jobs {
		if j.plan.image != image || !j.plan.order.GetInteractive() {
			continue
		}
		if !j.waiting.CompareAndSwap(true, false) {
			return fmt.Errorf("the build of image %s does not wait for its admin now: look at what 'daybreak image patch' says: %w", image, ErrRefused)
		}
		select {
		case j.seal <- struct{}{}:
		default: // it is told already
		}
		return nil
	}
	return fmt.Errorf("no interactive build of image %s is under way: %w", image, store.ErrNotFound)
}
