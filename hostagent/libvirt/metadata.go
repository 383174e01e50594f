package libvirt

import (
	"encoding/xml"
	"errors"
	"fmt"

	"daybreak/hostagent"
)

// Every VM of ours carries an element in its metadata that says whose life it is. What a VM is called, and what its guest
// says, proves nothing.
const (
	metadataURI = "urn:daybreak:domain:1"
	// A build's VM has another element, so that no list of desktops ever holds it.
	buildURI = "urn:daybreak:build:1"
	// A libvirtd could hand us anything: what is longer than this is none of ours.
	maxMetadata = 4096
)

// lifeElement is the element. libvirt takes elements of foreign namespaces only when they have a prefix.
type lifeElement struct {
	XMLName    xml.Name
	Namespace  string `xml:"xmlns:daybreak,attr,omitempty"`
	Desktop    string `xml:"desktop,attr"`
	UID        string `xml:"uid,attr"`
	Generation int64  `xml:"generation,attr"`
}

// elementOf names the element of a desktop's life or of a build, and its namespace.
func elementOf(build bool) (name, uri string) {
	if build {
		return "build", buildURI
	}
	return "life", metadataURI
}

// encodeLife writes the metadata of a life.
func encodeLife(life hostagent.Life) (string, error) {
	if err := checkLife(life); err != nil {
		return "", err
	}
	element, uri := elementOf(life.Build)
	text, err := xml.Marshal(lifeElement{
		XMLName: xml.Name{Local: "daybreak:" + element}, Namespace: uri,
		Desktop: life.Desktop, UID: life.UID, Generation: life.Generation,
	})
	if err != nil {
		return "", fmt.Errorf("write metadata: %w", err)
	}
	return string(text), nil
}

var errNotOurs = errors.New("not metadata of ours")

// parseLife reads what encodeLife wrote. libvirt, asked for the element of our namespace, gives it without the namespace.
func parseLife(text string, build bool) (hostagent.Life, error) {
	if len(text) > maxMetadata {
		return hostagent.Life{}, fmt.Errorf("read metadata: %d bytes: %w", len(text), errNotOurs)
	}
	var e lifeElement
	if err := xml.Unmarshal([]byte(text), &e); err != nil {
		return hostagent.Life{}, fmt.Errorf("read metadata: %w: %w", err, errNotOurs)
	}
	element, uri := elementOf(build)
	if name := e.XMLName; name.Local != element || name.Space != "" && name.Space != uri {
		return hostagent.Life{}, fmt.Errorf("read metadata: element %.80q: %w", name.Local, errNotOurs)
	}
	life := hostagent.Life{Desktop: e.Desktop, UID: e.UID, Generation: e.Generation, Build: build}
	if err := checkLife(life); err != nil {
		return hostagent.Life{}, fmt.Errorf("read metadata: %w: %w", err, errNotOurs)
	}
	return life, nil
}
