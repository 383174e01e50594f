package store

import (
	"fmt"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

const (
	// MaxOps bounds the steps of one transaction.
	MaxOps = 512
	// MaxTransactionBytes bounds the objects that one transaction writes, so that it fits into one request of etcd.
	MaxTransactionBytes = 1 << 20
)

// Prepare is for backends: it checks the form of a transaction and returns it ready to be stored. Objects are cloned,
// without revision; created ones have a uid and their time of creation.
func Prepare(ops []Op, now time.Time) ([]Op, error) {
	if len(ops) > MaxOps {
		return nil, fmt.Errorf("transaction of %d steps, at most %d are allowed: %w", len(ops), MaxOps, ErrInvalid)
	}
	seen := make(map[Ref]bool, len(ops))
	ready := make([]Op, 0, len(ops))
	total := 0
	for _, op := range ops {
		if err := checkForm(op); err != nil {
			return nil, &OpError{Op: op, Err: err}
		}
		if seen[op.Ref] {
			return nil, &OpError{Op: op, Err: fmt.Errorf("twice in one transaction: %w", ErrInvalid)}
		}
		seen[op.Ref] = true
		switch op.Verb {
		case VerbCreate, VerbUpdate:
			total += proto.Size(op.Object)
			op.Object = stamped(op, now)
		case VerbCheck, VerbDelete:
			op.Object = nil
		}
		ready = append(ready, op)
	}
	if total > MaxTransactionBytes {
		return nil, fmt.Errorf("transaction writes %d bytes, at most %d are allowed: %w", total, MaxTransactionBytes, ErrInvalid)
	}
	return ready, nil
}

// stamped clones the object of an op and gives a new one what the store owes it.
func stamped(op Op, now time.Time) Object {
	o := proto.CloneOf(op.Object)
	meta := o.GetMeta()
	meta.Revision = 0
	if op.Verb == VerbCreate {
		if meta.Uid == "" {
			meta.Uid = uuid.NewString()
		}
		meta.Created = timestamppb.New(now)
	}
	return o
}

func checkForm(op Op) error {
	if _, err := New(op.Ref.Kind); err != nil || op.Ref.Name == "" {
		return fmt.Errorf("kind or name missing: %w", ErrInvalid)
	}
	switch op.Verb {
	case VerbCreate:
		return checkObject(op)
	case VerbUpdate:
		if op.Revision <= 0 {
			return fmt.Errorf("needs the revision that it was decided on: %w", ErrInvalid)
		}
		return checkObject(op)
	case VerbDelete:
		if op.Revision <= 0 {
			return fmt.Errorf("needs the revision that it was decided on: %w", ErrInvalid)
		}
		return nil
	case VerbCheck:
		return nil
	}
	return ErrInvalid
}

func checkObject(op Op) error {
	if op.Object == nil || !op.Object.ProtoReflect().IsValid() {
		return fmt.Errorf("no object given: %w", ErrInvalid)
	}
	if have := RefOf(op.Object); have != op.Ref {
		return fmt.Errorf("the object given is %s: %w", have, ErrInvalid)
	}
	if size := proto.Size(op.Object); size > MaxObjectBytes {
		return fmt.Errorf("has %d bytes, at most %d are allowed: make it smaller: %w", size, MaxObjectBytes, ErrInvalid)
	}
	return nil
}
