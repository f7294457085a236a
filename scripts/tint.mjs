// Has Dawn's compiler, Tint, make a module and pipelines of every variant of the kernels, which
// `cargo run --example shader_variants -- FOLDER` writes, and prints what it refuses.
//
// node scripts/tint.mjs WEBGPU FOLDER: WEBGPU is the folder of the npm package `webgpu`.
// VK_DRIVER_FILES says which Vulkan driver Dawn uses; any will do.

import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [from, folder] = process.argv.slice(2);
const { create } = await import(pathToFileURL(resolve(from, "index.js")));
// Kept until the end: Dawn falls over once this is collected.
const gpu = create(["backend=vulkan"]);
const adapter = await gpu.requestAdapter();
if (!adapter) {
    console.error("Dawn finds no Vulkan adapter");
    process.exit(2);
}
const subgroups = adapter.features.has("subgroups");
const device = await adapter.requestDevice({ requiredFeatures: subgroups ? ["subgroups"] : [] });

// What `make` gives, or null if Dawn calls it invalid; then `refused` has the reason.
const refused = [];
async function valid(what, make) {
    device.pushErrorScope("validation");
    const made = make();
    const error = await device.popErrorScope();
    if (error) refused.push(`${what}: ${error.message}`);
    return error ? null : made;
}

// What this is for: a subgroup operation that not all lanes reach.
const planted = "enable subgroups; @compute @workgroup_size(64) fn f(@builtin(local_invocation_index) i: u32) " +
    "{ if i == 0u { _ = subgroupAdd(i); } }";
await valid("planted", () => device.createShaderModule({ code: planted }));
if (subgroups && !refused.splice(0).some((reason) => reason.includes("uniform control flow"))) {
    console.error("Tint does not refuse a planted error");
    process.exitCode = 2;
}
refused.length = 0;

let modules = 0, pipelines = 0, left = 0;
for (const variant of JSON.parse(readFileSync(join(folder, "variants.json"), "utf8"))) {
    if (variant.subgroups && !subgroups) {
        left += 1;
        continue;
    }
    // naga knows subgroup operations without this line, and refuses it.
    const code = (variant.subgroups ? "enable subgroups;\n" : "") + readFileSync(join(folder, variant.wgsl), "utf8");
    modules += 1;
    const module = await valid(variant.wgsl, () => device.createShaderModule({ code }));
    for (const constants of module ? variant.constants : []) {
        pipelines += 1;
        const what = `${variant.wgsl} ${JSON.stringify(constants)}`;
        const compute = { module, entryPoint: variant.kernel, constants };
        await valid(what, () => device.createComputePipeline({ layout: "auto", compute }));
    }
}
for (const reason of refused) console.log(reason);
const skipped = left > 0 ? `, ${left} left out: the adapter has no subgroups` : "";
console.log(`${adapter.info.description}: ${modules} modules, ${pipelines} pipelines, ${refused.length} refused${skipped}`);
device.destroy();
globalThis.gpu = gpu;
// Dawn's threads may keep node alive.
process.exit(refused.length > 0 || modules === 0 ? 1 : process.exitCode ?? 0);
