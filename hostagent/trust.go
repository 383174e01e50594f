package hostagent

import (
	"fmt"

	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

// pinAdvice is what an admin of the host can do about a publisher who is not trusted.
const pinAdvice = "if that publisher is to be trusted, write its key to a file on this host (daybreak publisher key prints it) and name the " +
	"file with --publisher-key"

// signed is what names a version together with what publishers said of it.
type signed interface {
	GetImage() string
	GetDigest() string
	GetSignatures() []*v1.Signature
}

// checkImage says why a version must not come to this host; nil when a publisher whose key is pinned here signed it.
func (a *Agent) checkImage(version signed) error {
	return CheckImage(a.cfg.Publishers, version.GetImage(), version.GetDigest(), version.GetSignatures())
}

// CheckImage says why a version must not be run on a host that trusts these publishers, and what to do; nil when it may be.
// The error wraps ErrPermanent and sign.ErrUntrusted.
func CheckImage(publishers *sign.Publishers, image, digest string, signatures []*v1.Signature) error {
	if err := publishers.Check(image, digest, signatures); err != nil {
		return fmt.Errorf("%w: %w: %s", ErrPermanent, err, pinAdvice)
	}
	return nil
}

// unfit says why a life can never be brought up on this host; empty when it may be.
func (s situation) unfit() string {
	switch zone := s.assignment.GetSpec().GetZone(); {
	case !s.hasZone:
		return fmt.Sprintf("this host has no network for zone %q: give the agent --zone %s=BRIDGE", zone, zone)
	case s.untrusted != nil:
		return "not run: " + s.untrusted.Error()
	}
	return ""
}

// trustsNobody says that nothing new can be run here, for want of a key; empty when there is one.
func (a *Agent) trustsNobody() string {
	if a.cfg.Publishers == nil || len(a.cfg.Publishers.Keys()) > 0 {
		return ""
	}
	return "no publisher's key is pinned on this host, so no image may run here: write the control plane's key to a file " +
		"(daybreak publisher key prints it) and name the file with --publisher-key, or enrol the host anew"
}
