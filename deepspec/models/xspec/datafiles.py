"""Which data files the models of XSPEC's library look for, and the error of a model that failed its trial."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from deepspec.errors import UserError
from deepspec.models.xspec.library import library
from deepspec.models.xspec.modeldat import Definition

_COCO = "apec_v*_coco.fits"
_NEI = "apec_v*_nei_comp.fits"
#: Data files by model, as seen by tracing the files that each model of XSPEC 12.15.0 looked for and did not find.
DATA_FILES = {
    _COCO: "apec bapec bcempow bcheb6 bcie bcoolflow bcph bexpcheb6 bgadem btapec bvapec bvcempow bvcheb6 bvcie "
    "bvcoolflow bvcph bvexpcheb6 bvgadem bvtapec bvvapec bvvcie bvvgadem bvvtapec bvvwdem bvwdem bwdem "
    "c6mekl c6pmekl c6pvmkl c6vmekl cemekl cempow cevmkl cheb6 cie coolflow cph expcheb6 gadem mkcflow "
    "nlapec tapec vapec vcempow vcheb6 vcie vcoolflow vcph vexpcheb6 vgadem vmcflow vtapec vvapec vvcie "
    "vvgadem vvtapec vvwdem vwdem wdem",
    _NEI: "bequil bgnei bnei bnpshock bpshock brnei bvequil bvgnei bvnei bvnpshock bvpshock bvrnei bvvgnei "
    "bvvnei bvvnpshock bvvpshock bvvrnei equil gnei nei npshock pshock rnei vequil vgnei vnei vnpshock "
    "vpshock vrnei vvgnei vvnei vvnpshock vvpshock vvrnei",
    "sedov.fits": "bsedov bvsedov bvvsedov sedov vsedov vvsedov",
    "snyields.dat": "bsnapec snapec",
    "ari.mod": "kdblur kdblur2 kerrd laor laor2",
    "kerrtable.fits": "kerrconv kerrdisk",
    "kerrbb.fits": "kerrbb zkerrbb",
    "KBHline00.fits": "kyconv",
    "KBHline01.fits": "kyrline",
    "mekal.mod": "mekal vmekal",
    "recomb.fits": "meka vmeka",
    "raysmith.mod": "cflow raymond vraymond",
    "ltcz.fits": "compth eqpair eqtherm",
    "mansig.fits": "absori",
    "IsmabsAtomicData.fits": "ismabs",
    "ismdust_edge_data.fits": "ismdust olivineabs",
    "pnint.dat": "diskpn",
    "ezdiskbbdata.fits": "ezdiskbb",
    "spC.fits": "carbatm",
    "spH.fits": "hatm",
    "nsadata.fits": "nsa",
    "nsagravdata.fits": "nsagrav",
    "nsatmosdata.fits": "nsatmos",
    "nsmax.fits": "nsmax",
    "nsmaxg.fits": "nsmaxg",
    "nsx.fits": "nsx",
    "acisabsdata.fits": "acisabs",
    "swind1_mtable.fits": "swind1",
    "slimbb-full.fits": "slimbh",
    "xiondata.fits": "xion",
    "xscat_*.fits": "xscat",
    "zxipcf_mtable.fits": "zxipab zxipcf",
    "reflionx.mod": "rfxconv",
    "xillver-a-Ec*.fits": "xilconv",
}
#: The plasma models choose their files by the switch: 0 computes, 1 interpolates a table, 2 takes AtomDB.
_MEKAL_BY_SWITCH = {0: "mekal1.dat", 1: "mekal.mod", 2: _COCO}
#: Models that return finite numbers without the file that they looked for in vain.
SILENT = frozenset({"absori", "compth", "eqtherm", "ismabs", "ismdust", "olivineabs"})
#: What else a model may want.
HINTS = {
    "smaug": "it needs XFLT keywords of a spectrum, which are not handed on",
    "rgsext": "it needs the file of XSPEC's xset RGS_XSOURCE_FILE, which is not handed on",
    "rgsxsrc": "it needs the file of XSPEC's xset RGS_XSOURCE_FILE, which is not handed on",
    "clumin": "its default redshift is 0",
}


def missing_files(definition: Definition, parameters: Sequence[float], folder: str) -> list[str]:
    """Data files that the model is known to need and that are not in `folder`."""
    name = definition.name.lower()
    if name in ("mekal", "vmekal"):
        needed = [_MEKAL_BY_SWITCH.get(int(parameters[-1]), "mekal.mod")]
    else:
        needed = [file for file, models in DATA_FILES.items() if name in models.split()]
    return [file for file in needed if not glob.glob(os.path.join(glob.escape(folder), file))]


def refusal(definition: Definition, parameters: Sequence[float], what: str, said: str = "") -> UserError:
    """The error of a model that failed its trial: what happened, which file is missing where, and what to do."""
    folder = library().data_folder
    missing = missing_files(definition, parameters, folder)
    chosen = [
        f"{entry.name}={value:g}"
        for entry, value in zip(definition.entries, parameters, strict=True)
        if entry.switch or value != entry.default
    ]
    problem = f"it {what} when tried at {', '.join(chosen) or 'its default parameters'}"
    remedy = "set XSPEC_MDATA_DIR to the modelData folder of a HEASoft installation, or HEADAS to the installation"
    if not missing:
        remedy = f"if it needs data files other than those in {folder}, {remedy}"
    hint = HINTS.get(definition.name.lower())
    if missing:
        problem += f": its data file {', '.join(missing)} is not in {folder}"
        if definition.name.lower() in ("mekal", "vmekal"):
            remedy += "; the native mekal and vmekal need no file"
    elif hint:
        problem, remedy = f"{problem}: {hint}", "choose another model, or another value of its parameters"
    elif said:
        problem += f" (it said: {said})"
    return UserError(problem, source=f"XSPEC model {definition.name}", remedy=remedy)
