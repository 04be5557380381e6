// Names of the files by which a folder is known as an image: image-spec v1.1, "Image Layout", and skopeo's "dir:".
export const OCI_LAYOUT = "oci-layout";
/** Leads to all else by digests. */
export const OCI_INDEX = "index.json";
export const DIR_VERSION = "version";
export const DIR_MANIFEST = "manifest.json";
