package hostagent

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"

	v1 "daybreak/proto/daybreak/v1"
)

// Builder does builds in VMs that are no desktops. hostagent/build is the real one.
type Builder interface {
	// Accept takes a call in, or says why not; it does not wait.
	Accept(call BuildCall) error
	// MemoryMiB is the memory that builds take now.
	MemoryMiB() uint64
	// Run takes away what an earlier process left of builds, and does those that are accepted, until ctx ends. Nothing of them
	// is left then.
	Run(ctx context.Context) error
}

// BuildCall calls the host to a build.
type BuildCall struct {
	// ID is that of the Ask.
	ID string
	// MemoryMiB is the memory that its VM will take.
	MemoryMiB uint32
	// Dial makes a connection to the control plane that called. A build has one of its own, since a session may end where
	// the build can go on.
	Dial func() (*grpc.ClientConn, error)
	// Source gives the content of versions.
	Source Source
}

// callBuild answers a call to a build.
func (s *session) callBuild(ask *v1.Ask) error {
	a := s.agent
	if a.cfg.Builder == nil {
		return errors.New("this host does no builds")
	}
	if why := a.frozen(); why != "" {
		return fmt.Errorf("this host does nothing now: %s", why)
	}
	memory := ask.GetBuild().GetMemoryMib()
	load, err := a.meter.Load()
	if err != nil {
		return fmt.Errorf("measure memory: %w", err)
	}
	if load.MemoryAvailableMiB < uint64(memory) {
		return fmt.Errorf("the build's VM needs %d MiB, and %d MiB of this host's memory are free", memory, load.MemoryAvailableMiB)
	}
	if why := a.governor.lacks(uint64(memory)); why != "" {
		return fmt.Errorf("the build's VM %s", why)
	}
	err = a.cfg.Builder.Accept(BuildCall{
		ID: ask.GetId(), MemoryMiB: memory, Source: a.source,
		Dial: func() (*grpc.ClientConn, error) { return a.cfg.Dial(s.server) },
	})
	if err == nil {
		a.book.signal() // the report tells how much memory builds take
	}
	return err
}
