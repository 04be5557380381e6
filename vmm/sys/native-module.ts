// Where the native module is, for a thread that cannot look for it.
export { KOFFI_PATH as NATIVE_MODULE_PATH, koffiPath as nativeModulePath } from "./koffi.js";
